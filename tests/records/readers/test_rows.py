import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_job.records.passage import Answer, Passage, Question
from tests.records.question_files import CONTEXT, FLAT, PAIR, passages_of, problems, written


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_flat_rows_of_one_title_and_context_make_one_passage(tmp_path: Path, suffix: str) -> None:
    other = {**FLAT, "id": "q2", "context": "1920 again.", "answers": {"text": ["1920"], "answer_start": [0]}}
    impossible = {**FLAT, "id": "q3", "answers": {"text": [], "answer_start": []}}
    elsewhere = {**FLAT, "id": "q4", "title": "Dance"}
    rows = [{"title": None, **row} for row in (FLAT, other, impossible, elsewhere)]
    passages = passages_of(written(tmp_path, f"train.{suffix}", rows))
    assert [(p.article, p.text, [q.id for q in p.questions]) for p in passages] == [
        ("", CONTEXT, ["q1", "q3"]),
        ("", "1920 again.", ["q2"]),
        ("Dance", CONTEXT, ["q4"]),
    ]
    assert [len(q.answers) for q in passages[0].questions] == [1, 0]


def test_closed_book_pairs_have_no_text_and_number_themselves(tmp_path: Path) -> None:
    expected = [
        Passage("", None, (Question("1", "2 + 2?", (Answer("4", None),)),)),
        Passage("", None, (Question("pi", "Half a turn,\nin radians?", (Answer("3,14", None),)),)),
    ]
    rows = [PAIR, {"id": "pi", "question": "Half a turn,\nin radians?", "answer": "3,14"}]
    assert passages_of(written(tmp_path, "train.jsonl", rows)) == expected
    text = 'id,question,answer\n1,2 + 2?,4\npi,"Half a turn,\nin radians?","3,14"\n'
    assert passages_of(written(tmp_path, "train.csv", text)) == expected


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(names, names), min_size=1, max_size=5))
def test_pairs_survive_csv_and_json_lines(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"question": question, "answer": answer} for question, answer in pairs]
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["question", "answer"], quoting=csv.QUOTE_ALL)
        table.writeheader()
        table.writerows(rows)
    passages = passages_of(folder / "pairs.csv")
    assert passages == passages_of(written(folder, "pairs.jsonl", rows))
    assert [(p.questions[0].text, p.questions[0].answers[0].text) for p in passages] == pairs


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_bad_flat_rows_are_named(tmp_path: Path, suffix: str) -> None:
    shifted = {**FLAT, "answers": {"text": ["1920"], "answer_start": [23]}}
    uneven = {**FLAT, "id": "q2", "answers": {"text": ["1920"], "answer_start": []}}
    blank = {**FLAT, "id": "q3", "context": "", "question": " "}
    kind = {"jsonl": "line", "parquet": "row"}[suffix]
    assert problems(tmp_path, f"train.{suffix}", [FLAT, shifted, uneven, blank, FLAT]) == [
        f"{kind} 2 'q1': answers.0 has '1920', which is not at answer_start 23 but at 22: "
        "set answer_start to 22 (it counts characters, not bytes, from 0)",
        f"{kind} 3 'q2': answers has 1 value(s) in text but 0 in answer_start: give one of each per answer",
        f"{kind} 4 'q3': context is empty: fill it in",
        f"{kind} 4 'q3': question is only whitespace: fill it in",
        f"{kind} 5 'q1': id 'q1' is already used by {kind} 1 'q1': use another id",
    ]


def test_bad_pairs_are_named(tmp_path: Path) -> None:
    rows = [
        PAIR,
        {"id": "1", **PAIR},
        {"id": 5, **PAIR},
        {"question": "Why?"},
        {"question": "Why?", "answer": ""},
    ]
    assert problems(tmp_path, "train.jsonl", rows) == [
        "line 2 '1': id '1' is already used by line 1: use another id",
        "line 3: id must be text, not 5",
        "line 4: answer is missing: add it",
        "line 5: answer is empty: fill it in",
    ]
