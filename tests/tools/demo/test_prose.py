"""The prose offers enough variety, and every draw from it gives correct text."""

import re

import pytest

from tools.demo.kinds import Kind, kinds

BLANK = re.compile(r"\[([^\]]*)\]")
RANGE = re.compile(r"(\d+)-(\d+)")
NAMES = ("person", "surname", "place")


@pytest.fixture(params=kinds(), ids=lambda kind: kind.title)
def kind(request) -> Kind:
    return request.param


def texts(kind):
    """All templates of a kind."""
    facts = [text for fact in kind.facts for text in (fact.answer, *fact.sentences, *fact.questions)]
    return [kind.title, kind.name, *kind.openings, *facts, *kind.asides]


def sort_of(answer):
    """The sort of an answer: number, name or choice."""
    (blank,) = BLANK.findall(answer)
    return "number" if RANGE.fullmatch(blank) else "name" if blank in NAMES else "choice"


def test_there_is_enough_variety(kind):
    assert len(set(kind.openings)) >= 6
    assert len(kind.facts) >= 10
    assert len(set(kind.asides)) >= 10
    for fact in kind.facts:
        assert len(set(fact.sentences)) >= 5, fact.label
        assert len(set(fact.questions)) >= 5, fact.label


def test_templates_are_well_formed(kind):
    for text in texts(kind):
        assert text.isascii(), text
        assert text == " ".join(text.split()), text
        fields = set(re.findall(r"{(.*?)}", text))
        assert fields <= {"name", "region", "answer"}, text
        for blank in BLANK.findall(text):
            numbers = RANGE.fullmatch(blank)
            options = blank.split("|")
            assert blank in NAMES or numbers or len(options) > 1, text
            assert not numbers or int(numbers[1]) < int(numbers[2]), text
            assert len(set(options)) == len(options), text
            assert all(option.strip() for option in options), text


def test_each_sentence_states_its_answer_once_and_no_question_does(kind):
    for fact in kind.facts:
        for sentence in fact.sentences:
            assert sentence.count("{answer}") == 1, sentence
            assert sentence[-1] in ".!", sentence
        for question in fact.questions:
            assert "{answer}" not in question, question
            assert not BLANK.search(question), question
            assert question.count("{name}") == 1, question
            assert question[0].isupper(), question
            assert question[-1] == "?", question
    for aside in kind.asides:
        assert BLANK.search(aside), aside
        assert "{answer}" not in aside, aside


def test_an_answer_cannot_be_guessed_without_the_passage(kind):
    for fact in kind.facts:
        if sort_of(fact.answer) == "choice":
            assert len(BLANK.findall(fact.answer)[0].split("|")) >= 8, fact.label
        if sort_of(fact.answer) == "number":
            first, last = map(int, RANGE.search(fact.answer).groups())
            assert last - first >= 15, fact.label


def test_answers_of_one_sort_compete(kind):
    sorts = [sort_of(fact.answer) for fact in kind.facts]
    blanks = [BLANK.findall(fact.answer)[0] for fact in kind.facts]
    assert blanks.count("person") >= 2
    assert blanks.count("place") >= 2
    assert sorts.count("number") >= 3
    assert sorts.count("choice") >= 2


def test_no_question_asks_for_two_facts(kind):
    questions = [question for fact in kind.facts for question in fact.questions]
    assert len(set(questions)) == len(questions)


def test_labels_are_distinct(kind):
    assert len({fact.label for fact in kind.facts}) == len(kind.facts)


def test_no_pronoun_assumes_the_gender_of_a_drawn_name(kind):
    for text in texts(kind):
        assert not re.search(r"\b(he|she|his|her|hers|him|himself|herself)\b", text, re.IGNORECASE), text
