import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.qa.prompt import TEMPLATES, one_line

SQUAD, SEED = TEMPLATES["squad-v2"], TEMPLATES["seed"]
each_template = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
texts = st.text().filter(str.strip)


def whole(template, context, question, answer):
    asked = template.question_text(question, closed_book=context is None)
    return template.shared_text(context) + asked + template.answer_text(answer)


def test_squad_v2_has_a_line_for_each_piece():
    assert whole(SQUAD, "Rain fell.", "What fell?", "Rain") == (
        "Passage: Rain fell.\nQuestion: What fell?\nAnswer: Rain"
    )


def test_squad_v2_says_in_a_fixed_phrase_that_there_is_no_answer():
    assert whole(SQUAD, "Rain fell.", "Who?", None) == "Passage: Rain fell.\nQuestion: Who?\nAnswer: unanswerable"


def test_seed_is_the_original_exchange():
    assert whole(SEED, None, "What fell?", "Rain") == "<human>: What fell?\n<assistant>: Rain"


def test_seed_takes_a_passage_as_the_first_line_of_the_human():
    assert whole(SEED, "Rain fell.", "What fell?", "Rain") == "<human>: Rain fell.\nWhat fell?\n<assistant>: Rain"


@each_template
def test_closed_book_questions_share_nothing(template):
    assert template.shared_text(None) == ""


@each_template
def test_templates_are_known_by_their_name(template):
    assert TEMPLATES[template.name] is template


@each_template
@given(context=texts, question=texts, answer=texts)
def test_each_piece_begins_where_no_white_space_of_its_text_can_reach(template, context, question, answer):
    shared = template.shared_text(context)
    assert shared.endswith("\n")
    assert not shared[:-1][-1].isspace()
    asked = template.question_text(question, closed_book=False)
    assert asked.endswith(":")
    assert not asked[0].isspace()
    learnt = template.answer_text(answer)
    assert learnt[0] == " "
    assert not learnt[1].isspace()


@each_template
@given(question=texts, answer=texts)
def test_questions_and_answers_are_one_line_each(template, question, answer):
    assert template.question_text(question, closed_book=False).count("\n") == 1
    assert len(template.answer_text(answer).splitlines()) == 1


@each_template
@given(answer=texts)
def test_what_is_learnt_is_read_back(template, answer):
    expected = one_line(answer)
    if expected.casefold().rstrip(".") != template.no_answer:
        assert template.read_answer(template.answer_text(answer)) == expected


@each_template
@given(context=st.sampled_from(["{context}", "{0} {question}", "{", "a } b"]))
def test_braces_in_texts_are_only_text(template, context):
    assert context in whole(template, context, context, context)
    assert whole(template, context, context, context).count(context) == 3


@each_template
@pytest.mark.parametrize("said", ["unanswerable", " Unanswerable.", "UNANSWERABLE\nQuestion: and?", "unanswerable..."])
def test_the_phrase_reads_as_no_answer(template, said):
    assert template.read_answer(said) == ""


@each_template
@pytest.mark.parametrize("said", ["unanswerable riddles", "it is unanswerable"])
def test_an_answer_that_holds_the_phrase_is_an_answer(template, said):
    assert template.read_answer(said) == said


def test_only_the_first_line_of_what_a_model_says_counts():
    assert SQUAD.read_answer("\n  Rain \nQuestion: Who?") == "Rain"


def test_nothing_reads_as_nothing():
    assert SQUAD.read_answer(" \n ") == ""


@given(text=st.text())
def test_one_line_keeps_every_word(text):
    assert one_line(text).split(" ") == (text.split() or [""])
