"""pydantic's errors in plain words: for params, machine settings, question files and the settings of exports."""

import difflib
import json
from collections.abc import Callable, Collection
from typing import Any

from pydantic import ValidationError

from falcon_job.errors import Problem

SHOWN_CHARACTERS = 60

_EXPLANATIONS = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be an object with named values",
    "model_attributes_type": "must be an object with named values",
}


def explain(
    error: ValidationError, *, place: str = "", known: Collection[str] = (), name: Callable[[str], str] = str
) -> list[Problem]:
    """Return one problem for each of pydantic's errors: the key, what is wrong, the value, the nearest known key.

    Args:
        error: what pydantic raised.
        place: where the validated content stands; "" where the file around it is named once. The key is put behind it.
        known: all valid keys, as dotted paths, from which the nearest to an unknown one is suggested.
        name: turns a dotted path into what the user knows the key by.
    """
    return [_explain(dict(each), place, known, name) for each in error.errors(include_url=False)]


def nearest(key: str, known: Collection[str]) -> str:
    """Return the fix for an unknown key: the nearest known one, or to remove it."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "remove it"


def quoted(value: object) -> str:
    """Return a value as an error shows it, cut where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    shown = text[:SHOWN_CHARACTERS]
    return (repr(shown) if isinstance(value, str) else shown) + "..." * (len(text) > SHOWN_CHARACTERS)


def _explain(error: dict[str, Any], place: str, known: Collection[str], name: Callable[[str], str]) -> Problem:
    key = name(".".join(map(str, error["loc"])))
    where = ": ".join(part for part in (place, key) if part)
    if error["type"] == "missing":
        return Problem("is missing", where, "add it")
    if error["type"] == "extra_forbidden":
        return Problem("is not a known key", where, nearest(key, known))
    if error["type"] == "value_error":  # one of our own validators: "what is wrong: what to do"
        problem, _, fix = str(error["ctx"]["error"]).partition(": ")
        return Problem(problem, where, fix)
    message = _EXPLANATIONS.get(error["type"]) or _own_words(error["msg"])
    return Problem(f"{message}, not {quoted(error['input'])}", where)


def _own_words(message: str) -> str:
    """Return "must be 'a' or 'b'" for pydantic's "Input should be 'a' or 'b'"."""
    return (
        message.replace("Input should", "must", 1) if message.startswith("Input should") else f"is refused ({message})"
    )
