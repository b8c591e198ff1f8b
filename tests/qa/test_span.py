import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.qa.metric import score_answer
from falcon_job.qa.span import nearest_span

PASSAGE = 'In 1066 William (the Duke of Normandy) crossed the sea; the "Battle of Hastings" followed in October.'
words = st.sampled_from(["the", "sea", "Sea,", "Duke", "of", "(of", "1066", "x-ray", "...", "caf\u00e9", "a"])
texts = st.lists(words, max_size=12).map(" ".join)
any_text = st.text(alphabet="aAb \t.,(\"'\u00e9\u00df\u0130\u201c\u2026-", max_size=30)


def f1(answer: str, gold: str) -> float:
    return score_answer(answer, [gold]).f1


@pytest.mark.parametrize(
    ("answer", "span"),
    [
        ("Duke of Normandy", "Duke of Normandy"),
        (" 1066 ", "1066"),
        ("battle of hastings", "Battle of Hastings"),
        ("It was the battle, of Hastings", "Battle of Hastings"),
        ("Duke Robert of Normandy", "Duke of Normandy"),
        ("1067 William", "William"),
        ("nothing shared", ""),
        ("", ""),
        ("...", ""),
    ],
)
def test_the_nearest_span_of_worked_examples(answer: str, span: str) -> None:
    assert nearest_span(answer, PASSAGE) == span


def test_equals_go_to_the_earliest_and_then_the_shortest() -> None:
    assert nearest_span("green cat", "a red cat, a blue Cat") == "cat"
    assert nearest_span("cat sat there", "Cat. dog and more, sat") == "Cat"


def test_an_empty_passage_gives_nothing() -> None:
    assert nearest_span("an answer", "") == ""


@given(any_text | texts, any_text | texts)
def test_the_result_is_always_a_piece_of_the_passage(answer: str, passage: str) -> None:
    assert nearest_span(answer, passage) in passage


@given(texts, st.data())
def test_a_piece_of_the_passage_stays_as_it_is(passage: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(passage)))
    piece = passage[start : data.draw(st.integers(start, len(passage)))].strip()
    assert nearest_span(piece, passage) == piece


@given(texts, texts)
def test_no_run_of_words_is_nearer(answer: str, passage: str) -> None:
    starts = [match.start() for match in re.finditer(r"\S+", passage)]
    ends = [match.end() for match in re.finditer(r"\S+", passage)]
    runs = [passage[start:end] for start in starts for end in ends if start < end]
    span = nearest_span(answer, passage)
    if span:
        assert f1(span, answer) >= max(f1(run, answer) for run in runs) - 1e-9  # "a" in "sea" is better than any run
    else:
        assert not set(re.findall(r"\w+", answer.lower())) & set(re.findall(r"\w+", passage.lower())) - {
            "the",
            "a",
        }


def test_thousands_of_answers_take_seconds() -> None:
    draw = random.Random(0)
    vocabulary = ["the", "of", "and", "in", *(f"w{number}" for number in range(60))]
    passage = " ".join(draw.choices(vocabulary, k=200))
    answers = [" ".join(draw.choices(vocabulary, k=8)) for _ in range(300)]
    start = time.process_time()
    for answer in answers:
        nearest_span(answer, passage)
    assert time.process_time() - start < 1.5  # 5 ms each
