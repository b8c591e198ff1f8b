import dataclasses

import pytest

from falcon_job.inference.generation import Generator
from falcon_job.inference.replies import reply_to
from tests.inference.finished_run import WRONG, base_of, dev_rows, encoder_of, finished_run


@pytest.fixture(scope="module")
def generator():
    workspace = finished_run().workspace
    return Generator(base_of(workspace), encoder_of(workspace), 8, 8192)


@pytest.fixture(scope="module")
def rows():
    return dev_rows(finished_run().workspace)


@pytest.fixture(scope="module")
def replies(generator, rows):
    return reply_to(rows, generator, extractive=False)


def windows_of(rows):
    """Question id to all its (row, question), in the order of the rows."""
    windows = {}
    for row in rows:
        for question in row.questions:
            windows.setdefault(question.id, []).append((row, question))
    return windows


def test_each_question_gets_one_reply_in_order_of_first_appearance(rows, replies):
    assert [reply.question.id for reply in replies] == list(windows_of(rows))
    assert len(replies) < sum(len(row.questions) for row in rows), "some stand in several windows"


def test_the_window_with_the_lowest_no_answer_probability_is_chosen(rows, replies, generator):
    several = 0
    for reply in replies:
        asked = windows_of(rows)[reply.question.id]
        prompts = [[*row.prefix_ids, *question.prompt_ids] for row, question in asked]
        probabilities = [generator.no_answer_probabilities([prompt])[0] for prompt in prompts]
        best = probabilities.index(min(probabilities))
        assert reply.no_answer_probability == pytest.approx(probabilities[best], rel=1e-4)
        assert (reply.context, reply.passage) == (asked[best][0].context, asked[best][0].passage)
        assert reply.answer == generator.answers([prompts[best]])[0]
        several += len(asked) > 1
    assert several >= 5


def test_the_order_of_windows_does_not_decide_which_is_chosen(rows, replies, generator):
    def by_question(found):
        return {reply.question.id: (reply.answer, reply.context) for reply in found}

    assert by_question(reply_to(rows[::-1], generator, extractive=False)) == by_question(replies)
    chosen = {reply.question.id: reply.context for reply in replies}
    last_passage = [asked for asked in windows_of(rows).values() if len(asked) > 1]
    places = {[row.context for row, _ in asked].index(chosen[asked[0][1].id]) for asked in last_passage}
    assert places != {len(last_passage[0]) - 1}, "a rule that takes the last window would pass otherwise"


def test_the_forced_answer_is_the_answer_or_a_guess_after_an_abstention(replies):
    assert {bool(reply.answer) for reply in replies} == {True, False}
    for reply in replies:
        assert reply.forced
        assert reply.answer in ("", reply.forced)


def test_taught_answers_come_back(replies):
    parts = finished_run().parts
    said = {part: {r.answer for r in replies if parts[r.question.id] == part} for part in set(parts.values())}
    assert said["wrong"] == {WRONG}
    assert said["abstains"] == said["no answer"] == {""}
    assert "Olaf Dahl" in said["right"]


def test_extraction_makes_every_answer_a_span_of_its_window(rows, replies, generator):
    extracted = reply_to(rows, generator, extractive=True)
    assert any(reply.answer and reply.answer not in reply.context for reply in replies), "something to extract"
    for before, after in zip(replies, extracted, strict=True):
        assert after.answer in after.context
        assert after.forced in after.context
        assert after.context == before.context
        assert after.no_answer_probability == before.no_answer_probability
        if before.answer and before.answer in before.context:
            assert after.answer == before.answer


def test_closed_book_answers_are_left_as_they_are(generator, rows):
    row = dataclasses.replace(rows[0], context=None)
    free, extracted = (reply_to([row], generator, extractive=extractive) for extractive in (False, True))
    assert free == extracted
    assert {reply.context for reply in free} == {None}


def test_no_questions_give_no_replies(generator):
    assert reply_to([], generator, extractive=False) == []
