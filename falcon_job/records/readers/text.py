"""Helpers that the readers share: UTF-8 lines, JSON whose errors have a place, lookups in values of any type."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from falcon_job.errors import Problem
from falcon_job.validation import quoted

THE_FILE = "the file"


class UnreadableError(Exception):
    """The rest of a file, or one line of it, cannot be read.

    Attributes:
        problem: why, and what to do.
    """

    def __init__(self, problem: str, fix: str, *, place: str = THE_FILE) -> None:
        self.problem = Problem(problem, place, fix)
        super().__init__(str(self.problem))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers, from 1; a byte order mark is dropped.

    Raises:
        UnreadableError: it is not UTF-8, or has only whitespace.
    """
    offset, blank = 0, True
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UnreadableError(
                    "is not UTF-8", "save the file as UTF-8", place=f"byte {offset + error.start}"
                ) from None
            offset += len(line)
            text = text.removeprefix("\ufeff") if number == 1 else text
            blank = blank and not text.strip()
            yield number, text
    if blank:
        raise UnreadableError("is empty", "add at least one question")


def parse_json(text: str, line: int = 1) -> Any:
    """Parse JSON that starts at `line` of its file.

    Raises:
        UnreadableError: it is not valid JSON, is nested too deeply, or has a number that is too long for Python.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1}, column {error.colno}"
        raise UnreadableError(f"is not valid JSON ({error.msg})", "correct it", place=place) from None
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"has JSON that cannot be read ({error})", "correct it", place=f"line {line}") from None


def require_columns(needed: Sequence[str], columns: Sequence[str]) -> None:
    """Check that a table has the columns it needs.

    Raises:
        UnreadableError: it lacks some.
    """
    if missing := [name for name in needed if name not in columns]:
        raise UnreadableError(
            f"lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}",
            f"name its columns {', '.join(needed)}; they are now {', '.join(columns)}",
        )


def get_key(content: Any, key: str) -> Any:
    """Return `content[key]`; None if `content` is not an object, or lacks the key."""
    return content.get(key) if isinstance(content, dict) else None


def get_list(content: Any, key: str) -> list[Any]:
    """Return `content[key]` if that is a list, else an empty list."""
    value = get_key(content, key)
    return value if isinstance(value, list) else []


def place_of(kind: str, number: int, name: Any) -> str:
    """Return how errors name a record: its kind, its number and, if it has one, its name, as in "row 3 'q7'"."""
    return f"{kind} {number}" + (f" {quoted(name)}" if isinstance(name, str) and name.strip() else "")
