"""Errors read as sentences, and list problems without holding more than they show."""

import pytest

from falcon_job.errors import InputError, Problem, ProblemList


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            InputError("is not UTF-8", place="notes.txt", fix="save it as UTF-8"),
            "notes.txt is not UTF-8: save it as UTF-8",
        ),
        (InputError("2 questions are too long", fix="shorten them"), "2 questions are too long: shorten them"),
        (InputError("is missing", place="params.yaml"), "params.yaml is missing"),
    ],
)
def test_place_problem_and_fix_make_one_sentence(error, text):
    assert str(error) == text


def test_a_listing_counts_its_problems_and_gives_each_a_line():
    problems = [Problem("is empty", "line 1", "give it text"), Problem("is missing", "line 2: answer")]
    assert str(InputError.listing("a.csv", problems)) == (
        "a.csv has 2 problems\n  line 1 is empty: give it text\n  line 2: answer is missing"
    )
    assert str(InputError.listing("a.csv", problems[:1])).startswith("a.csv has 1 problem\n")


def test_a_listing_shows_fifty_problems_and_counts_the_others():
    error = InputError.listing("a.csv", (Problem("is empty", f"line {number}") for number in range(60)))
    lines = str(error).split("\n")
    assert (lines[0], len(lines), lines[-1]) == ("a.csv has 60 problems", 52, "  ... and 10 more")


def test_a_list_of_problems_keeps_only_those_that_are_shown():
    problems = ProblemList(Problem("is empty", f"line {number}") for number in range(1000))
    assert len(problems) == 1000
    assert [problem.place for problem in problems] == [f"line {number}" for number in range(50)]
