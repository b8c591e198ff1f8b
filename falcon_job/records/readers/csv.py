"""CSV with a header: closed-book pairs in the columns question, answer and, optionally, id."""

import csv
from collections.abc import Iterator
from pathlib import Path

from falcon_job.errors import Problem
from falcon_job.records.passage import Passage
from falcon_job.records.readers.rows import read_pair
from falcon_job.records.readers.text import UnreadableError, place_of, read_lines, require_columns


def read(path: Path) -> Iterator[Passage | Problem]:
    """Yield a passage for each row, and the problems. An empty id counts as a missing one.

    Raises:
        UnreadableError: it is not UTF-8, lacks a column or has an unclosed quote.
    """
    table = csv.DictReader((line for _, line in read_lines(path)), strict=True)
    try:
        require_columns(("question", "answer"), table.fieldnames or [])
        for number, row in enumerate(table, start=1):
            place = place_of("row", number, row.get("id"))
            if None in row:
                yield Problem("has more cells than the header", place, "quote texts that contain commas")
            cells = {key: cell for key, cell in row.items() if cell is not None and (cell or key != "id")}
            yield from read_pair(cells, place, number)
    except csv.Error as error:
        place = f"line {table.reader.line_num}"
        raise UnreadableError(f"is not valid CSV ({error})", "correct the quotes", place=place) from None
