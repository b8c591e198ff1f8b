"""What pydantic finds wrong is said in plain words, with the place, the value and the fix."""

from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from falcon_job.errors import Problem
from falcon_job.validation import WrongValueError, explain, nearest, quoted


def _even(number: int) -> int:
    if number % 2:
        raise WrongValueError("is odd: that is, not even", "add one")
    return number


class Shelf(BaseModel, extra="forbid", strict=True):
    width: Annotated[int, Field(gt=0, lt=10), AfterValidator(_even)]
    colour: Literal["red", "blue"] = "red"
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "a"


def problems(content, **options):
    with pytest.raises(ValidationError) as caught:
        Shelf.model_validate(content)
    return explain(caught.value, **options)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, Problem("is missing", "width", "add it")),
        ({"width": 0}, Problem("must be greater than 0, not 0", "width")),
        ({"width": 10}, Problem("must be less than 10, not 10", "width")),
        ({"width": "2"}, Problem("must be a whole number, not '2'", "width")),
        ({"width": 3}, Problem("is odd: that is, not even", "width", "add one")),
        ({"width": 2, "colour": "green"}, Problem("must be 'red' or 'blue', not 'green'", "colour")),
        ({"width": 2, "name": "A"}, Problem("must match pattern '^[a-z]+$', not 'A'", "name")),
        ({"width": 2, "color": "red"}, Problem("is not a known key", "color", "did you mean colour?")),
        ("red", Problem("must be an object with keys, not 'red'")),
    ],
)
def test_each_kind_of_error_is_one_problem(content, problem):
    assert problems(content, known=["width", "colour", "name"]) == [problem]


def test_the_key_stands_behind_the_place():
    assert [str(problem) for problem in problems({}, place="line 3")] == ["line 3: width is missing: add it"]


def test_a_key_is_named_as_the_user_knows_it():
    assert problems({}, name=str.upper)[0].place == "WIDTH"


def test_a_common_prefix_makes_no_keys_similar():
    assert nearest("FALCON_JOB_BANANAS", ["FALCON_JOB_DEVICE"], prefix="FALCON_JOB_") == "remove it"
    assert (
        nearest("FALCON_JOB_DEVISE", ["FALCON_JOB_DEVICE"], prefix="FALCON_JOB_") == "did you mean FALCON_JOB_DEVICE?"
    )


def test_a_long_value_is_cut():
    assert quoted("x" * 100) == f"'{'x' * 60}'..."
    assert quoted([1, 2]) == "[1, 2]"
