"""One module per format. Its `read(path)` yields the passages and problems of a question file in file order.

A reader yields a `Problem` for each thing that is wrong and reads on. If the rest of the file cannot be read, it raises
`UnreadableError`. To add a format, write a module with such a `read` and add it to `READERS`.
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
