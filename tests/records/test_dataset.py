import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_job.errors import InputError
from falcon_job.records.comparison import find_overlaps
from tests.records.question_files import CONTEXT, FLAT, PAIR, passages_of, problems, question, squad, written


def test_all_problems_of_a_file_come_at_once(tmp_path: Path) -> None:
    content = {
        "data": [
            "no article",
            {"title": 7, "paragraphs": [{"context": "", "qas": [{"id": "q1", "question": ""}]}]},
            {
                "title": "Two",
                "paragraphs": [{"qas": "none"}, None, {"context": CONTEXT, "qas": [question(), question()]}],
            },
            {"paragraphs": [{"context": CONTEXT, "qas": [question(id=""), 3]}]},
        ]
    }
    assert problems(tmp_path, "train.json", content) == [
        "article 0 must be an object with keys, not 'no article'",
        "article 1: title must be text, not 7",
        "article 1, paragraph 0: context is empty: fill it in",
        "article 1, paragraph 0, question 0 'q1': question is empty: fill it in",
        "article 1, paragraph 0, question 0 'q1': answers is missing: add it",
        "article 2 'Two', paragraph 0: context is missing: add it",
        "article 2 'Two', paragraph 0: qas must be a list, not 'none'",
        "article 2 'Two', paragraph 1 must be an object with keys, not null",
        "article 2 'Two', paragraph 2, question 1 'q1': "
        "id 'q1' is already used by article 2 'Two', paragraph 2, question 0 'q1': use another id",
        "article 3, paragraph 0, question 0: id is empty: fill it in",
        "article 3, paragraph 0, question 1 must be an object with keys, not 3",
    ]


def test_fifty_problems_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "train.jsonl", [{"question": "", "answer": "x"}] * 60)
    with pytest.raises(InputError) as caught:
        passages_of(path)
    lines = str(caught.value).split("\n")
    assert (lines[0], len(lines), lines[-1]) == (f"{path} has 60 problems", 52, "  ... and 10 more")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b"", "the file is empty: add at least one question"),
        ("a.jsonl", b"\xef\xbb\xbf\n \n", "the file is empty: add at least one question"),
        ("a.json", {"data": []}, "the file has no questions: add at least one"),
        ("a.json", squad(), "the file has no questions: add at least one"),
        ("a.csv", "question,answer\n", "the file has no questions: add at least one"),
        (
            "a.json",
            '{"data": [\n  {,\n',
            "line 2, column 4 is not valid JSON (Expecting property name enclosed in ",
        ),
        ("a.json", "[" * 100_000, "line 1 has JSON that cannot be read (maximum recursion depth exceeded"),
        ("a.json", f"[{'1' * 5000}]", "line 1 has JSON that cannot be read (Exceeds the limit"),
        ("a.json", [FLAT], 'the file is not a SQuAD document: write an object with "data", a list of articles'),
        (
            "a.json",
            f"{json.dumps(FLAT)}\n{json.dumps(FLAT)}\n",
            "the file is JSON Lines, not a SQuAD document: rename",
        ),
        ("a.json", json.dumps(PAIR), "the file is JSON Lines, not a SQuAD document: rename it to .jsonl"),
        ("a.jsonl", [squad(question())], "the file is a SQuAD document, not JSON Lines: rename it to .json"),
        ("a.jsonl", f"{json.dumps(PAIR)}\n{{]", "line 2, column 2 is not valid JSON"),
        (
            "a.jsonl",
            [PAIR, FLAT],
            "the file mixes rows with a passage (line 2) and closed-book pairs (line 1): split it into two files",
        ),
        ("a.json", b'{"data": "\xe9"}', "byte 10 is not UTF-8: save the file as UTF-8"),
        (
            "a.csv",
            "\ufeffquestion,answer\n".encode() + b"\xff",
            "byte 19 is not UTF-8: save the file as UTF-8",
        ),
        (
            "a.csv",
            "question;answer\nQ;A\n",
            "the file lacks the columns question, answer: "
            "name its columns question, answer; they are now question;answer",
        ),
        (
            "a.csv",
            'question,answer\nQ,"A\n',
            "line 2 is not valid CSV (unexpected end of data): correct the quotes",
        ),
        ("a.parquet", b"", "the file is not a complete Parquet file ("),
        ("a.parquet", b"PAR1 but no more", "the file is not a complete Parquet file ("),
        (
            "a.parquet",
            [PAIR],
            "the file lacks the columns id, context, answers: "
            "name its columns id, context, question, answers; they are now ",
        ),
    ],
)
def test_a_file_that_is_not_what_its_suffix_says_is_refused(
    tmp_path: Path, name: str, content: Any, problem: str
) -> None:
    assert problems(tmp_path, name, content)[0].startswith(problem)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"none\.json has 1 problem\n  the file cannot be read \(No such file or directory\): "
    ):
        passages_of(tmp_path / "none.json")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv has 1 problem\n  the file cannot be read \(Is a directory\): "):
        passages_of(tmp_path / "folder.csv")


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'\.txt': use a file that ends in \.json, \.jsonl, \.parquet, \.csv"):
        passages_of(tmp_path / "train.txt")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 50) | st.floats() | st.sampled_from(["", " ", "q1", "1920", CONTEXT]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "title",
                    "paragraphs",
                    "context",
                    "qas",
                    "id",
                    "question",
                    "answers",
                    "text",
                    "answer_start",
                    "answer",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(json_values, st.sampled_from([".json", ".jsonl"]))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_text(json.dumps(value), encoding="utf-8")
    with suppress(InputError):
        assert passages_of(path)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([".json", ".jsonl", ".csv", ".parquet"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes{suffix}"
    path.write_bytes(data)
    with suppress(InputError):
        assert passages_of(path)


@pytest.fixture
def real_slice() -> Path:
    folder = os.environ.get("FALCON_JOB_SQUAD")
    if not folder:
        pytest.skip("FALCON_JOB_SQUAD names no folder with a slice of SQuAD 2.0 (train.json, dev.json)")
    return Path(folder)


@pytest.mark.parametrize(("split", "counts"), [("train", (9, 350, 3459, 1828)), ("dev", (3, 115, 1090, 566))])
def test_the_real_slice_reads_whole_and_the_same_from_flat_files(
    real_slice: Path, tmp_path: Path, split: str, counts: tuple[int, ...]
) -> None:
    passages = passages_of(real_slice / f"{split}.json")
    questions = [question for passage in passages for question in passage.questions]
    articles = {passage.article for passage in passages}
    unanswerable = [question for question in questions if not question.answers]
    assert (len(articles), len(passages), len(questions), len(unanswerable)) == counts
    rows = [
        {
            "id": question.id,
            "title": passage.article,
            "context": passage.text,
            "question": question.text,
            "answers": {
                "text": [answer.text for answer in question.answers],
                "answer_start": [answer.start for answer in question.answers],
            },
        }
        for passage in passages
        for question in passage.questions
    ]
    assert passages_of(written(tmp_path, "flat.jsonl", rows)) == passages
    assert passages_of(written(tmp_path, "flat.parquet", rows)) == passages


def test_the_splits_of_the_real_slice_are_disjoint(real_slice: Path) -> None:
    assert find_overlaps(*(passages_of(real_slice / f"{split}.json") for split in ("train", "dev"))) == []
