from pathlib import Path
from typing import Any

import pytest

from falcon_job.records.passage import Answer, Passage, Question
from falcon_job.records.readers.squad import LARGEST_DOCUMENT, read
from falcon_job.records.readers.text import UnreadableError
from tests.records.question_files import CONTEXT, YEAR, passages_of, problems, question, squad, written


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


def test_questions_carry_their_place_while_the_file_is_read(tmp_path: Path) -> None:
    (passage,) = read(written(tmp_path, "train.json", squad(question(), question(id="q2"))))
    assert isinstance(passage, Passage)
    assert [question.place for question in passage.questions] == [PLACE, PLACE.replace("0 'q1'", "1 'q2'")]


PLACE = "article 0 'Caf\u00e9', paragraph 0, question 0 'q1'"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"is_impossible": "no"}, "is_impossible must be true or false, not 'no'"),
        ({"question": " \n"}, "question is only whitespace: fill it in"),
        ({"question": ["When?"]}, 'question must be text, not ["When?"]'),
        (
            {"question": "\ud800"},
            "question has an unpaired surrogate at character 0: write both halves of the pair, or remove it",
        ),
        ({"answers": "1920"}, "answers must be a list, not '1920'"),
        ({"answers": ["1920"]}, "answers.0 must be an object with keys, not '1920'"),
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
        ({"answers": [{**YEAR, "answer_start": -1}]}, "answers.0.answer_start must be at least 0, not -1"),
        ({"answers": [YEAR, {**YEAR, "text": ""}]}, "answers.1.text is empty: fill it in"),
        ({"answers": [{**YEAR, "text": "\t"}]}, "answers.0.text is only whitespace: fill it in"),
        (
            {"answers": [{**YEAR, "answer_start": 24}]},  # the offset in UTF-8 bytes
            "answers.0 has '1920', which is not at answer_start 24 but at 22: "
            "set answer_start to 22 (it counts characters, not bytes, from 0)",
        ),
        (
            {"answers": [{"text": "in", "answer_start": 40}]},  # the nearest of several
            "answers.0 has 'in', which is not at answer_start 40 but at 38: "
            "set answer_start to 38 (it counts characters, not bytes, from 0)",
        ),
        (
            {"answers": [{**YEAR, "answer_start": 900}]},
            "answers.0 has '1920', which is not at answer_start 900 (the passage has 46 characters) "
            "but at 22: set answer_start to 22 (it counts characters, not bytes, from 0)",
        ),
        (
            {"answers": [{"text": "1921", "answer_start": 22}]},
            "answers.0 has '1921', which is not at answer_start 22 or anywhere else in the passage: "
            "copy it from there exactly",
        ),
    ],
)
def test_a_bad_key_of_a_question_is_named_with_its_fix(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    assert problems(tmp_path, "train.json", squad(question(**changes))) == [f"{PLACE}: {problem}"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"answers": []}, "has no answers: add one, or set is_impossible to true"),
        (
            {"is_impossible": True},
            "is impossible, but has answers: set is_impossible to false, or remove the answers",
        ),
    ],
)
def test_a_question_that_contradicts_itself_is_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    assert problems(tmp_path, "train.json", squad(question(**changes))) == [f"{PLACE} {problem}"]


def test_an_answer_with_a_colon_stays_whole_in_its_problem(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "train.json", squad(question(answers=[{"text": "at: 9", "answer_start": 0}])))
    assert problem.startswith(f"{PLACE}: answers.0 has 'at: 9', which is not at answer_start 0")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"title": ["x"]}, 'article 0: title must be text, not ["x"]'),
        ({"title": 10**30}, f"article 0: title must be text, not {10**30}"),
        (
            {"title": "\ud800"},
            "title has an unpaired surrogate at character 0: write both halves of the pair, or remove it",
        ),
        ({"context": {"a": 1}}, 'paragraph 0: context must be text, not {"a": 1}'),
        (
            {"context": "\ud800"},
            "paragraph 0: context has an unpaired surrogate at character 0: "
            "write both halves of the pair, or remove it",
        ),
    ],
)
def test_a_bad_article_or_paragraph_is_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    unanswerable = question(answers=[], is_impossible=True)
    (found,) = problems(tmp_path, "train.json", squad(unanswerable, **changes))
    assert found.endswith(problem)


def test_a_document_too_large_to_be_read_whole_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    with path.open("wb") as file:
        file.truncate(LARGEST_DOCUMENT + 1_000_000)  # takes no room on disk

    with pytest.raises(UnreadableError) as caught:
        list(read(path))
    assert str(caught.value) == (
        "the file has 129 MB, but a JSON document is read into memory whole and may have at most 128 MB: "
        "convert it to .jsonl or .parquet rows, which may have any size"
    )
