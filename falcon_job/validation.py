"""pydantic's errors in plain words: for params, machine settings, question files and the settings of exports."""

import difflib
import json
import re
from collections.abc import Callable, Collection
from typing import Any

from pydantic import ValidationError

from falcon_job.errors import Problem

SHOWN_CHARACTERS = 60

_EXPLANATIONS = {
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge}",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "model_type": "must be an object with keys",
    "model_attributes_type": "must be an object with keys",
}
"""What a value must be, by the type of pydantic's error; in braces stands what its context names."""


class WrongValueError(ValueError):
    """What a validator of ours raises: the problem and its fix, as in `falcon_job.errors.Problem`."""

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(f"{problem}: {fix}" if fix else problem)
        self.problem = problem
        self.fix = fix


def explain(
    error: ValidationError, *, place: str = "", known: Collection[str] = (), name: Callable[[str], str] = str
) -> list[Problem]:
    """Return one problem for each of pydantic's errors: the key, what is wrong, the value, the nearest known key.

    Args:
        error: what pydantic raised.
        place: where the validated content stands, to which the key is added; "" if the message names the file anyway.
        known: all valid keys, as dotted paths, from which the nearest to an unknown one is suggested.
        name: turns a dotted path into what the user knows the key by.
    """
    return [_explain(dict(each), place, known, name) for each in error.errors(include_url=False)]


def nearest(key: str, known: Collection[str], *, prefix: str = "") -> str:
    """Return the fix for an unknown key: the nearest known one, or to remove it.

    A prefix that all keys have is not compared: it would make any two of them similar.
    """
    names = [name.removeprefix(prefix) for name in known]
    near = difflib.get_close_matches(key.removeprefix(prefix), names, n=1, cutoff=0.5)
    return f"did you mean {prefix}{near[0]}?" if near else "remove it"


def quoted(value: object) -> str:
    """Return a value as an error shows it, cut where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    shown = text[:SHOWN_CHARACTERS]
    return (repr(shown) if isinstance(value, str) else shown) + "..." * (len(text) > SHOWN_CHARACTERS)


def _explain(error: dict[str, Any], place: str, known: Collection[str], name: Callable[[str], str]) -> Problem:
    key = name(".".join(map(str, error["loc"])))
    where = ": ".join(part for part in (place, key) if part)
    context = error.get("ctx", {})
    if error["type"] == "missing":
        return Problem("is missing", where, "add it")
    if error["type"] == "extra_forbidden":
        return Problem("is not a known key", where, nearest(key, known))
    if isinstance(cause := context.get("error"), WrongValueError):
        return Problem(cause.problem, where, cause.fix)
    explanation = _EXPLANATIONS.get(error["type"])
    message = explanation.format_map(context) if explanation else _requirement(error["msg"])
    return Problem(f"{message}, not {quoted(error['input'])}", where)


def _requirement(message: str) -> str:
    """Return "must be less than 1" for pydantic's "Input should be less than 1"."""
    return re.sub(r"^\w+ should", "must", message)
