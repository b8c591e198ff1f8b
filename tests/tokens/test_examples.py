"""Which window each question sits in, what is left out, and what is said of it."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_job.errors import InputError
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.records.passage import Answer, Passage, Question
from falcon_job.tokens import examples
from falcon_job.tokens.encoder import PromptEncoder
from falcon_job.tokens.examples import ANSWER_CUT, TOO_LONG, ExampleEncoder, Tally
from tests.made_tokenizers import made

TOKENIZER = made("falcon-tiny")
ENCODER = PromptEncoder(TOKENIZER, TEMPLATES["squad-v2"], TOKENIZER.pad_token_id)
WORDS = ["harbour", "tide", "gull", "1873", "captain", "rope"]


def length(row, question):
    return len(row.prefix_ids) + len(question.prompt_ids) + len(question.answer_ids)


def passage(
    words: list[str], asked: list[tuple[int, int] | None], question: str = "Which?", name: str = "p"
) -> Passage:
    """A passage and its questions, each answered by words [first, first + count), or unanswerable."""
    text = " ".join(words)
    questions = []
    for i, span in enumerate(asked):
        answers = ()
        if span:
            first, count = span
            start = len(" ".join(words[:first])) + (first > 0)
            answers = (Answer(" ".join(words[first : first + count]), start),)
        questions.append(Question(f"{name}-{i}", question, answers))
    return Passage("Velmora", text, tuple(questions))


@st.composite
def passages(draw):
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=150))
    spans = st.integers(0, len(words) - 1).flatmap(
        lambda first: st.tuples(st.just(first), st.integers(1, len(words) - first))
    )
    return passage(words, draw(st.lists(st.none() | spans, min_size=1, max_size=6)))


def train(one, max_tokens, seed=0):
    tally = Tally()
    return list(ExampleEncoder(ENCODER, max_tokens, seed).training([one], tally)), tally


@given(one=passages(), size=st.integers(60, 160), seed=st.integers(0, 3))
@settings(deadline=None)
def test_a_trained_question_sits_in_one_window_or_is_counted(one, size, seed):
    rows, tally = train(one, size, seed)
    placed = Counter(question.id for row in rows for question in row.questions)
    assert set(placed.values()) <= {1}
    assert placed.total() + tally.dropped.total() == len(one.questions)
    unanswerable = {question.id for question in one.questions if not question.answers}
    assert unanswerable <= set(placed)
    for row in rows:
        assert row.questions
        for question in row.questions:
            assert length(row, question) <= size
            assert all(answer in row.context for answer in question.answers)


@given(one=passages(), size=st.integers(60, 160))
@settings(deadline=None)
def test_on_dev_every_question_sits_in_every_window(one, size):
    tally = Tally()
    rows = list(ExampleEncoder(ENCODER, size, 0).scoring([one], 6, tally))
    assert all([q.id for q in row.questions] == [q.id for q in one.questions] for row in rows)
    assert all(len(row.prefix_ids) + len(q.prompt_ids) + 6 <= size for row in rows for q in row.questions)
    assert tally.windowed_passages == (len(rows) > 1)
    for word in set(one.text.split()):
        assert any(word in row.context for row in rows)
    assert rows[0].context.startswith(one.text.split()[0])
    assert rows[-1].context.endswith(one.text.split()[-1])
    assert not tally.dropped.total()


def test_an_answer_that_stands_in_two_windows_is_asked_in_a_drawn_one():
    words = [f"w{i}" for i in range(120)]
    one = passage(words, [(i, 1) for i in range(120)])
    rows, _ = train(one, 100)
    again, _ = train(one, 100)
    other, _ = train(one, 100, seed=1)
    assert rows == again
    assert rows != other
    assert len(rows) > 2


def test_unanswerable_questions_are_spread_over_all_windows():
    one = passage(["tide"] * 200, [None] * 200)
    rows, _ = train(one, 80)
    expected = len(list(ExampleEncoder(ENCODER, 80, 0).scoring([one], len(ENCODER.answers([None])[0]), Tally())))
    assert len(rows) == expected > 3
    assert min(len(row.questions) for row in rows) > 200 / len(rows) / 3


def test_the_window_is_that_of_the_answers_place_not_of_its_text():
    words = ["gull", *["tide"] * 200, "gull"]
    for first, end in ((0, 0), (201, -1)):
        (row,), _ = train(passage(words, [(first, 1)]), 80)
        assert row.context.split()[end] == "gull"
        assert row.context.count("gull") == 1


def test_an_answer_that_no_window_holds_is_left_out_and_counted():
    one = passage([f"w{i}" for i in range(120)], [(10, 40)])
    answer = one.questions[0].answers[0].text
    question_tokens = len(ENCODER.questions(["Which?"], closed_book=False)[0]) + len(ENCODER.answers([answer])[0])
    rows, tally = train(one, 2 * question_tokens)
    assert rows == []
    assert tally.dropped == {TOO_LONG: 0, ANSWER_CUT: 1}
    assert tally.windowed_passages == 1


def test_a_question_too_long_for_training_is_left_out_and_counted():
    one = Passage(
        "Velmora",
        "tide " * 60,
        (Question("long", "gull " * 60, ()), Question("short", "Which?", (Answer("tide", 0),))),
    )
    rows, tally = train(one, 100)
    assert [question.id for row in rows for question in row.questions] == ["short"]
    assert tally.dropped == {TOO_LONG: 1}


def test_a_passage_of_which_no_question_is_left_is_left_out():
    rows, tally = train(Passage("Velmora", "tide " * 60, (Question("long", "gull " * 60, ()),)), 100)
    assert rows == []
    assert tally.dropped == {TOO_LONG: 1}


@pytest.mark.parametrize("context", [None, "Short."])
def test_a_long_question_about_a_short_passage_may_fill_the_sequence(context):
    one = Passage("", context, (Question("long", "gull " * 30, (Answer("Short", None if context is None else 0),)),))
    rows, _ = train(one, 1000)
    exact = length(rows[0], rows[0].questions[0])
    assert len(rows[0].prefix_ids) < exact / 3
    assert len(train(one, exact)[0]) == 1
    rows, tally = train(one, exact - 1)
    assert rows == []
    assert tally.dropped == {TOO_LONG: 1}


def test_on_dev_all_questions_that_are_too_long_are_named_at_once():
    good = passage(["tide"], [None], name="good")
    bad = Passage("Oru", "tide " * 60, (Question("q7", "gull " * 60, ()), Question("q8", "Which?", ())))
    worse = Passage("Velmora", "tide " * 60, (Question("q9", "gull " * 70, ()),))
    encoder = ExampleEncoder(ENCODER, 100, 0)
    with pytest.raises(InputError) as caught:
        list(encoder.scoring([good, bad, worse], 6, Tally()))
    assert caught.value.exit_code == 2
    assert caught.value.problem.startswith("2 questions are too long")
    assert "preprocess.max_tokens (now 100)" in caught.value.fix
    assert [problem.place for problem in caught.value.problems] == [
        "article 'Oru', question 'q7'",
        "article 'Velmora', question 'q9'",
    ]
    needed = int(caught.value.fix.split()[-1])
    assert list(ExampleEncoder(ENCODER, needed, 0).scoring([good, bad, worse], 6, Tally()))
    with pytest.raises(InputError):
        list(ExampleEncoder(ENCODER, needed - 1, 0).scoring([good, bad, worse], 6, Tally()))


def test_nothing_is_yielded_before_all_questions_are_known_to_fit():
    bad = Passage("Oru", "tide " * 60, (Question("q7", "gull " * 60, ()),))
    rows = ExampleEncoder(ENCODER, 100, 0).scoring([passage(["tide"], [None]), bad], 6, Tally())
    with pytest.raises(InputError):
        next(rows)


def test_a_passage_without_spaces_is_cut_too():
    text = "\u6e2f" * 300
    one = Passage("Minato", text, (Question("q", "Which?", (Answer("\u6e2f", 150),)), Question("n", "Who?", ())))
    rows = list(ExampleEncoder(ENCODER, 100, 0).scoring([one], 6, Tally()))
    assert len(rows) > 5
    assert all(set(row.context) == {"\u6e2f"} for row in rows)
    assert sum(len(row.questions) for row in train(one, 100)[0]) == 2


def test_first_answer_is_learnt_and_all_are_kept():
    one = Passage("A", "tide gull", (Question("q", "Which?", (Answer("gull", 5), Answer("tide", 0))),))
    ((row,), _) = train(one, 100)
    assert row.questions[0].answers == ["gull", "tide"]
    assert row.questions[0].answer_ids == ENCODER.answers(["gull"])[0]
    assert row.prefix_ids == ENCODER.shared(["tide gull"])[0]
    assert row.questions[0].prompt_ids == ENCODER.questions(["Which?"], closed_book=False)[0]


def test_passages_keep_their_number_though_others_are_left_out():
    lost = Passage("Velmora", "tide " * 60, (Question("long", "gull " * 60, ()),))
    kept = passage(["tide"] * 200, [None] * 9)
    rows = list(ExampleEncoder(ENCODER, 100, 0).training([lost, kept], Tally()))
    assert {row.passage for row in rows} == {1}


@given(several=st.lists(passages(), max_size=7), at_a_time=st.integers(1, 4))
@settings(deadline=None)
def test_passages_tokenized_together_give_the_same_rows_as_alone(several, at_a_time):
    encoder = ExampleEncoder(ENCODER, 90, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "PASSAGES_AT_A_TIME", at_a_time)
        together = list(encoder.training(several, Tally()))
    alone = [list(encoder.training([one], Tally())) for one in several]

    assert together == [replace(row, passage=number) for number, rows in enumerate(alone) for row in rows]
