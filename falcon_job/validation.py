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
"""What a value must be, by the type of pydantic's error. Names in braces are filled in from the error's context."""


class WrongValueError(ValueError):
    """Raised by our own validators, with the problem and its fix as in `falcon_job.errors.Problem`."""

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(f"{problem}: {fix}" if fix else problem)
        self.problem = problem
        self.fix = fix


def explain(
    error: ValidationError, *, place: str = "", known: Collection[str] = (), name: Callable[[str], str] = str
) -> list[Problem]:
    """Return one problem for each of pydantic's errors. It names the key and shows the wrong value.

    Args:
        error: what pydantic raised.
        place: where the validated content is, such as a line; the key is added to it. "" if the key is enough.
        known: all valid keys as dotted paths; the fix for an unknown key suggests the nearest of them.
        name: turns a dotted path into the name that the user knows, such as that of a variable.
    """
    return [_explain(dict(each), place, known, name) for each in error.errors(include_url=False)]


def nearest(key: str, known: Collection[str], *, prefix: str = "") -> str:
    """Return the fix for an unknown key: to use the nearest known key or, if none is similar, to remove it.

    A prefix that all keys share is not compared, because it would make any two keys look similar.
    """
    names = [name.removeprefix(prefix) for name in known]
    near = difflib.get_close_matches(key.removeprefix(prefix), names, n=1, cutoff=0.5)
    return f"did you mean {prefix}{near[0]}?" if near else "remove it"


def quoted(value: object) -> str:
    """Return a value as errors show it: text in quotes, and long values cut off."""
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
