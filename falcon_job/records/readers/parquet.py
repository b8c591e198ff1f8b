"""Parquet: flat rows in the columns id, context, question, answers and, optionally, title."""

from collections.abc import Iterator
from pathlib import Path

from falcon_job.errors import Problem
from falcon_job.records.passage import Passage
from falcon_job.records.readers.rows import read_flat_row
from falcon_job.records.readers.text import UnreadableError, place_of, require_columns

NEEDED = ("id", "context", "question", "answers")
ROWS_AT_A_TIME = 1024


def read(path: Path) -> Iterator[Passage | Problem]:
    """Yield a passage for each row, and the problems.

    Raises:
        UnreadableError: it lacks a column, or it is not a complete Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            require_columns(NEEDED, columns)
            batches = file.iter_batches(ROWS_AT_A_TIME, columns=[*NEEDED, *({"title"} & set(columns))])
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield from read_flat_row(row, place_of("row", number, row["id"]))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UnreadableError(f"is not a complete Parquet file ({reason})", "copy or export it again") from error
