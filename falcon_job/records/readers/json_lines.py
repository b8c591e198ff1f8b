"""JSON Lines: one row per line. Either all rows are flat, or all are closed-book pairs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from falcon_job.errors import Problem
from falcon_job.records.passage import Passage
from falcon_job.records.readers.rows import read_flat_row, read_pair
from falcon_job.records.readers.text import UnreadableError, get_key, parse_json, place_of, read_lines


def read(path: Path) -> Iterator[Passage | Problem]:
    """Yield a passage for each row, and the problems.

    A row without the keys of either kind is read like the rows before it, and as a flat row if there are none.

    Raises:
        UnreadableError: it is not UTF-8, mixes both kinds or is a SQuAD document.
    """
    first_line: dict[str, int] = {}
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = parse_json(line, number)
        except UnreadableError as error:
            yield error.problem
            continue
        if kind := _kind(row):
            first_line.setdefault(kind, number)
            _check_one_kind(first_line)
        place = place_of("line", number, get_key(row, "id"))
        yield from read_pair(row, place, number) if "pair" in first_line else read_flat_row(row, place)


def _kind(row: Any) -> str | None:
    """Return whether the keys of a row make it "flat", a "pair" or a SQuAD "document"; None if they fit no kind."""
    kinds = {"context": "flat", "answers": "flat", "answer": "pair", "data": "document"}
    return next((kind for key, kind in kinds.items() if isinstance(row, dict) and key in row), None)


def _check_one_kind(first_line: dict[str, int]) -> None:
    if "document" in first_line:
        raise UnreadableError("is a SQuAD document, not JSON Lines", "rename it to .json")
    if len(first_line) > 1:
        raise UnreadableError(
            f"mixes rows with a passage (line {first_line['flat']}) and closed-book pairs (line {first_line['pair']})",
            "split it into two files",
        )
