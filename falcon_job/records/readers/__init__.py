"""One module a format: `read(path)` yields the passages of a question file, and its problems, in the file's order.

A reader yields a `Problem` for each thing that is wrong and reads on. If the rest of the file cannot be read, it raises
`UnreadableError`. To add a format, write a module with such a `read` and name it in `READERS`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from falcon_job.errors import Problem
from falcon_job.records.passage import Passage
from falcon_job.records.readers import csv, json_lines, parquet, squad

Reader = Callable[[Path], Iterator[Passage | Problem]]

READERS: dict[str, Reader] = {
    ".json": squad.read,
    ".jsonl": json_lines.read,
    ".parquet": parquet.read,
    ".csv": csv.read,
}
"""The reader for each suffix."""
