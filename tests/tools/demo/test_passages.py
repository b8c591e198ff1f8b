"""A passage states some facts and leaves the others open, and its questions ask for both."""

import pytest

from tools.demo.kinds import kinds
from tools.demo.passages import ask, sort_of, write_passage
from tools.demo.world import World


@pytest.fixture(params=kinds(), ids=lambda kind: kind.title)
def written(request):
    """Passages about one kind, each with its questions and the names of two other things."""
    world = World(5, "dev")
    found = []
    for _ in range(40):
        name, others = world.fill(request.param.name), [world.fill(request.param.name) for _ in range(2)]
        passage = write_passage(world, request.param, name, world.place())
        found.append((passage, ask(world, passage, 4, 2, others), others))
    return found


def test_each_answer_starts_where_its_statement_says(written):
    for passage, _, _ in written:
        for said in passage.stated:
            assert passage.text[said.start :].startswith(said.answer)
            assert said.sentence in passage.text
            assert said.answer in said.sentence


def test_passages_and_questions_are_plain_text(written):
    for passage, asked, _ in written:
        for text in (passage.text, *(one.question for one in asked)):
            assert not set("[]{}|") & set(text)
            assert text[0].isupper()


def test_every_fact_is_stated_or_left_open(written):
    for passage, _, _ in written:
        stated = [said.fact for said in passage.stated]
        assert len(stated) >= 6
        assert sorted(map(passage.kind.facts.index, [*stated, *passage.open])) == list(range(len(passage.kind.facts)))
        assert stated == sorted(stated, key=passage.kind.facts.index)


def test_as_many_questions_are_answerable_as_requested(written):
    for _, asked, _ in written:
        assert sum(one.statement is not None for one in asked) == 4
        assert len(asked) == 6
        assert len({one.question for one in asked}) == 6


def test_unanswerable_questions_ask_for_open_facts_or_other_things(written):
    of_another = 0
    for passage, asked, others in written:
        open_questions = {text.replace("{name}", passage.name) for fact in passage.open for text in fact.questions}
        for one in asked:
            if one.statement is None and one.question not in open_questions:
                of_another += 1
                assert any(other in one.question for other in others)
                assert passage.name not in one.question
    assert 0.2 < of_another / (2 * len(written)) < 0.5


def test_most_unanswerable_questions_have_a_plausible_wrong_answer(written):
    tempting = [
        any(sort_of(fact) == sort_of(said.fact) for said in passage.stated)
        for passage, asked, _ in written
        for one in asked
        for fact in passage.open
        if one.question in {text.replace("{name}", passage.name) for text in fact.questions}
    ]
    assert sum(tempting) / len(tempting) > 0.9


def test_passages_open_in_many_ways(written):
    openings = {passage.text.replace(passage.name, "X")[:25] for passage, _, _ in written}
    assert len(openings) > 10
