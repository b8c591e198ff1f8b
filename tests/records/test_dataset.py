import csv
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_job.errors import InputError
from falcon_job.records import readers
from falcon_job.records.dataset import check_disjoint, read_passages
from falcon_job.records.passage import Answer, Passage, Question

CONTEXT = "Caf\u00e9 M\u00fcller opened in 1920. It closed in 1944."
YEAR = {"text": "1920", "answer_start": 22}
FLAT = {
    "id": "q1",
    "context": CONTEXT,
    "question": "When?",
    "answers": {"text": ["1920"], "answer_start": [22]},
}
PAIR = {"question": "2 + 2?", "answer": "4"}


def question(**changes: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "When did it open?", "answers": [YEAR], **changes}


def squad(*questions: Any, title: Any = "Caf\u00e9", context: Any = CONTEXT) -> dict[str, Any]:
    return {
        "version": "v2.0",
        "data": [{"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}],
    }


def written(folder: Path, name: str, content: Any) -> Path:
    """A file of bytes, text, JSON, rows of JSON Lines or rows of Parquet, as content and name ask."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_bytes(content.encode())
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


def passages_of(path: Path) -> list[Passage]:
    return list(read_passages(path))


def problems(folder: Path, name: str, content: Any) -> list[str]:
    """The lines of the error that reading such a file raises, less the first, which must count them."""
    path = written(folder, name, content)
    with pytest.raises(InputError) as caught:
        passages_of(path)
    head, *lines = str(caught.value).split("\n")
    assert head == f"{path}: {len(lines)} problem{'s' * (len(lines) > 1)}"
    assert all(line.startswith("  ") for line in lines)
    return [line.strip() for line in lines]


# Reading what is right.


def test_squad_v2_keeps_answers_and_marks_unanswerable_questions(tmp_path: Path) -> None:
    guess = {"text": "1944", "answer_start": 41}
    content = squad(
        question(is_impossible=False),
        question(id="q2", is_impossible=True, answers=[], plausible_answers=[guess]),
    )
    assert passages_of(written(tmp_path, "train.json", content)) == [
        Passage(
            "Caf\u00e9",
            CONTEXT,
            (
                Question("q1", "When did it open?", (Answer("1920", 22),)),
                Question("q2", "When did it open?", ()),
            ),
        )
    ]


def test_squad_v1_has_no_marks(tmp_path: Path) -> None:
    twice = question(answers=[YEAR, YEAR])
    (passage,) = passages_of(written(tmp_path, "dev.JSON", squad(twice)))
    assert passage.questions[0].answers == (Answer("1920", 22), Answer("1920", 22))


def test_a_passage_without_questions_is_left_out(tmp_path: Path) -> None:
    content = {"data": squad(title="Empty")["data"] + squad(question())["data"]}
    assert [p.article for p in passages_of(written(tmp_path, "train.json", content))] == ["Caf\u00e9"]


def test_a_passage_that_stands_twice_is_shared_by_all_its_questions(tmp_path: Path) -> None:
    content = {"data": squad(question())["data"] + squad(question(id="q2"))["data"]}
    (passage,) = passages_of(written(tmp_path, "train.json", content))
    assert [question.id for question in passage.questions] == ["q1", "q2"]


def test_offsets_count_characters_also_beyond_the_basic_plane(tmp_path: Path) -> None:
    context = "\U0001f600\U0001f600 a smile"
    content = squad(question(answers=[{"text": "smile", "answer_start": 5}]), context=context)
    assert passages_of(written(tmp_path, "train.json", content))[0].text == context


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, suffix: str) -> None:
    content = {
        "json": json.dumps(squad(question())),
        "jsonl": json.dumps(FLAT),
        "csv": "question,answer\nQ,A\n",
    }[suffix]
    plain = passages_of(written(tmp_path, f"plain.{suffix}", content))
    assert passages_of(written(tmp_path, f"marked.{suffix}", b"\xef\xbb\xbf" + content.encode())) == plain


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


def test_line_separators_within_a_json_line_do_not_cut_it(tmp_path: Path) -> None:
    row = json.dumps({"question": "two\u2028lines?", "answer": "yes\u0085"}, ensure_ascii=False)
    (passage,) = passages_of(written(tmp_path, "train.jsonl", f"\r\n{row}\r\n\r\n"))
    assert passage.questions == (Question("2", "two\u2028lines?", (Answer("yes\u0085", None),)),)


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


# Refusing what is wrong.

WHERE = "article 0 'Caf\u00e9', paragraph 0, question 0 'q1': "


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"answers": []}, "has no answers: give it one or set is_impossible to true"),
        (
            {"is_impossible": True},
            "is impossible but has answers: set is_impossible to false or empty the answers",
        ),
        ({"is_impossible": "no"}, "is_impossible must be true or false, not 'no'"),
        ({"question": " \n"}, "question is only whitespace: give it text"),
        ({"question": ["When?"]}, 'question must be text, not ["When?"]'),
        (
            {"question": "\ud800"},
            "question has half a surrogate pair at character 0: write it whole",
        ),
        ({"answers": "1920"}, "answers must be a list, not '1920'"),
        ({"answers": ["1920"]}, "answers.0 must be an object with named values, not '1920'"),
        ({"answers": [{"text": "1920"}]}, "answers.0.answer_start is missing: add it"),
        (
            {"answers": [{**YEAR, "answer_start": "22"}]},
            "answers.0.answer_start must be a whole number, not '22'",
        ),
        (
            {"answers": [{**YEAR, "answer_start": 22.5}]},
            "answers.0.answer_start must be a whole number, not 22.5",
        ),
        (
            {"answers": [{**YEAR, "answer_start": True}]},
            "answers.0.answer_start must be a whole number, not true",
        ),
        ({"answers": [{**YEAR, "answer_start": -1}]}, "answers.0.answer_start must be 0 or more, not -1"),
        ({"answers": [YEAR, {**YEAR, "text": ""}]}, "answers.1.text is empty: give it text"),
        ({"answers": [{**YEAR, "text": "\t"}]}, "answers.0.text is only whitespace: give it text"),
        (
            {"answers": [{**YEAR, "answer_start": 24}]},  # the offset in UTF-8 bytes
            "answers.0 has '1920', which is not at answer_start 24 but at 22: "
            "set answer_start to that (characters, not bytes, from 0)",
        ),
        (
            {"answers": [{"text": "in", "answer_start": 40}]},  # the nearest of several
            "answers.0 has 'in', which is not at answer_start 40 but at 38: "
            "set answer_start to that (characters, not bytes, from 0)",
        ),
        (
            {"answers": [{**YEAR, "answer_start": 900}]},
            "answers.0 has '1920', which is not at answer_start 900 (beyond the passage's 46 characters) "
            "but at 22: set answer_start to that (characters, not bytes, from 0)",
        ),
        (
            {"answers": [{"text": "1921", "answer_start": 22}]},
            "answers.0 has '1921', which is not at answer_start 22 and does not occur in the passage: "
            "copy it from there, letter by letter",
        ),
    ],
)
def test_a_bad_question_is_named_with_its_fix(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    assert problems(tmp_path, "train.json", squad(question(**changes))) == [WHERE + problem]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"title": ["x"]}, 'article 0: title must be text, not ["x"]'),
        ({"title": 10**30}, f"article 0: title must be text, not {10**30}"),
        ({"title": "\ud800"}, "title has half a surrogate pair at character 0: write it whole"),
        ({"context": {"a": 1}}, 'paragraph 0: context must be text, not {"a": 1}'),
        ({"context": "\ud800"}, "paragraph 0: context has half a surrogate pair at character 0: write it whole"),
    ],
)
def test_a_bad_article_or_paragraph_is_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    unanswerable = question(answers=[], is_impossible=True)
    (found,) = problems(tmp_path, "train.json", squad(unanswerable, **changes))
    assert found.endswith(problem)


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
        "article 0: must be an object with named values, not 'no article'",
        "article 1: title must be text, not 7",
        "article 1, paragraph 0: context is empty: give it text",
        "article 1, paragraph 0, question 0 'q1': question is empty: give it text",
        "article 1, paragraph 0, question 0 'q1': answers is missing: add it",
        "article 2 'Two', paragraph 0: context is missing: add it",
        "article 2 'Two', paragraph 0: qas must be a list, not 'none'",
        "article 2 'Two', paragraph 1: must be an object with named values, not null",
        "article 2 'Two', paragraph 2, question 0 'q1': "
        "id 'q1' is taken by article 1, paragraph 0, question 0 'q1': give it its own",
        "article 2 'Two', paragraph 2, question 1 'q1': "
        "id 'q1' is taken by article 1, paragraph 0, question 0 'q1': give it its own",
        "article 3, paragraph 0, question 0: id is empty: give it text",
        "article 3, paragraph 0, question 1: must be an object with named values, not 3",
    ]


def test_fifty_problems_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "train.jsonl", [{"question": "", "answer": "x"}] * 60)
    with pytest.raises(InputError) as caught:
        passages_of(path)
    lines = str(caught.value).split("\n")
    assert (lines[0], len(lines), lines[-1]) == (f"{path}: 60 problems", 52, "  ... and 10 more")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_bad_flat_rows_are_named(tmp_path: Path, suffix: str) -> None:
    shifted = {**FLAT, "answers": {"text": ["1920"], "answer_start": [23]}}
    uneven = {**FLAT, "id": "q2", "answers": {"text": ["1920"], "answer_start": []}}
    blank = {**FLAT, "id": "q3", "context": "", "question": " "}
    kind = {"jsonl": "line", "parquet": "row"}[suffix]
    assert problems(tmp_path, f"train.{suffix}", [FLAT, shifted, uneven, blank]) == [
        f"{kind} 2 'q1': id 'q1' is taken by {kind} 1 'q1': give it its own",
        f"{kind} 2 'q1': answers.0 has '1920', which is not at answer_start 23 but at 22: "
        "set answer_start to that (characters, not bytes, from 0)",
        f"{kind} 3 'q2': answers has 1 text but 0 answer_start: pair them",
        f"{kind} 4 'q3': context is empty: give it text",
        f"{kind} 4 'q3': question is only whitespace: give it text",
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
        "line 2 '1': id '1' is taken by line 1: give it its own",
        "line 3: id must be text, not 5",
        "line 4: answer is missing: add it",
        "line 5: answer is empty: give it text",
    ]


def test_bad_csv_rows_are_named(tmp_path: Path) -> None:
    text = "id,question,answer\na,Q\nb,Q,A,more\n,Q,A\nd,Q,A\n"
    assert problems(tmp_path, "train.csv", text) == [
        "row 1 'a': answer is missing: add it",
        "row 2 'b': has more cells than the header: put texts with commas in quotes",
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b"", "is empty: give at least one question"),
        ("a.jsonl", b"\xef\xbb\xbf\n \n", "is empty: give at least one question"),
        ("a.json", {"data": []}, "holds no questions: give at least one"),
        ("a.json", squad(), "holds no questions: give at least one"),
        ("a.csv", "question,answer\n", "holds no questions: give at least one"),
        (
            "a.json",
            '{"data": [\n  {,\n',
            "line 2, column 4: no valid JSON (Expecting property name enclosed in ",
        ),
        ("a.json", "[" * 100_000, "line 1: JSON that cannot be read (maximum recursion depth exceeded"),
        ("a.json", f"[{'1' * 5000}]", "line 1: JSON that cannot be read (Exceeds the limit"),
        ("a.json", [FLAT], 'is no SQuAD document: it needs an object with "data", a list of articles'),
        (
            "a.json",
            f"{json.dumps(FLAT)}\n{json.dumps(FLAT)}\n",
            "is JSON Lines, not one SQuAD document: rename",
        ),
        ("a.json", json.dumps(PAIR), "is JSON Lines, not one SQuAD document: rename it to .jsonl"),
        ("a.jsonl", [squad(question())], "holds a SQuAD document, not JSON Lines: rename it to .json"),
        ("a.jsonl", f"{json.dumps(PAIR)}\n{{]", "line 2, column 2: no valid JSON"),
        (
            "a.jsonl",
            [PAIR, FLAT],
            "mixes rows with a passage (line 2) and closed-book pairs (line 1): split it",
        ),
        ("a.json", b'{"data": "\xe9"}', "byte 10 is no UTF-8: save the file as UTF-8"),
        (
            "a.csv",
            "\ufeffquestion,answer\n".encode() + b"\xff",
            "byte 19 is no UTF-8: save the file as UTF-8",
        ),
        (
            "a.csv",
            "question;answer\nQ;A\n",
            "has no column question, answer: it needs question, answer and has ",
        ),
        (
            "a.csv",
            'question,answer\nQ,"A\n',
            "line 2: no valid CSV (unexpected end of data): correct its quotes",
        ),
        ("a.parquet", b"", "is no complete Parquet file ("),
        ("a.parquet", b"PAR1 but no more", "is no complete Parquet file ("),
        (
            "a.parquet",
            [PAIR],
            "has no column id, context, answers: it needs id, context, question, answers and has ",
        ),
    ],
)
def test_a_file_that_is_not_what_its_suffix_says_is_refused(
    tmp_path: Path, name: str, content: Any, problem: str
) -> None:
    assert problems(tmp_path, name, content)[0].startswith(problem)


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path, "whole.parquet", [{**FLAT, "id": f"q{i}"} for i in range(100)]).read_bytes()
    for length in (4, len(whole) // 2, len(whole) - 1):
        assert "is no complete Parquet file" in problems(tmp_path, "cut.parquet", whole[:length])[0]
    damaged = whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :]
    problems(tmp_path, "damaged.parquet", damaged)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: 1 problem\n  cannot be read: No such file or directory"):
        passages_of(tmp_path / "none.json")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv: 1 problem\n  cannot be read: Is a directory"):
        passages_of(tmp_path / "folder.csv")


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'\.txt'; supported are \.json, \.jsonl, \.parquet, \.csv"):
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


# Splits against each other.


def open_book(article: str, text: str, *ids: str) -> Passage:
    return Passage(article, text, tuple(Question(name, "Who?", ()) for name in ids))


def closed_book(name: str, text: str) -> Passage:
    return Passage("", None, (Question(name, text, (Answer("x", None),)),))


def test_splits_without_overlap_are_disjoint() -> None:
    train = [open_book("A", "one", "1", "2"), open_book("B", "two", "3")]
    assert check_disjoint(train, [open_book("A", "two", "4"), open_book("C", "one", "5")]) == []


def test_shared_ids_and_passages_are_counted_with_examples() -> None:
    train = [open_book("A", f"text {i}", f"q{i}") for i in range(5)]
    dev = [*train[:4], open_book("B", "other", "q4")]
    assert check_disjoint(train, dev) == [
        "question ids in both train and dev: 5, such as 'q0', 'q1', 'q2'",
        "passages in both train and dev: 4, such as one of article 'A'",
    ]


def test_closed_book_splits_share_questions_not_row_numbers() -> None:
    train = [closed_book("1", "Why?"), closed_book("2", "How?")]
    assert check_disjoint(train, [closed_book("1", "Who?")]) == []
    assert check_disjoint(train, [closed_book("1", "How?")]) == [
        "closed-book questions in both train and dev: 1, such as id '2'"
    ]


# Real text.


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
    assert check_disjoint(*(passages_of(real_slice / f"{split}.json") for split in ("train", "dev"))) == []


def test_a_csv_row_with_an_empty_id_gets_its_number(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("id,question,answer\n,Who?,Ann\nx,Where?,Here\n", encoding="utf-8")

    assert [passage.questions[0].id for passage in passages_of(path)] == ["1", "x"]


def test_a_document_too_large_to_be_read_whole_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    with path.open("wb") as file:
        file.truncate(readers.LARGEST_DOCUMENT + 1_000_000)  # takes no room on disk

    with pytest.raises(InputError) as caught:
        read_passages(path)
    assert str(caught.value).splitlines()[1:] == [
        "  has 129 MB, and one JSON document is read whole, up to 128 MB: convert it to rows in .jsonl or .parquet, "
        "of any size"
    ]
