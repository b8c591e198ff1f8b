"""Tokenized questions on disk: one memory-mapped Arrow file per split, with one row per passage or window."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from falcon_job.errors import InputError, first_line
from falcon_job.packing import Branch, Tree


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """A tokenized question.

    Attributes:
        id, question: as in the question file.
        answers: the accepted answers; empty if the question is unanswerable.
        prompt_ids: tokens of the question, up to where the answer begins.
        answer_ids: tokens to train on, including end-of-text.
    """

    id: str
    question: str
    answers: list[str]
    prompt_ids: list[int]
    answer_ids: list[int]


@dataclass(frozen=True, slots=True)
class EncodedPassage:
    """A tokenized passage, or one window of it.

    Attributes:
        passage: number of the passage in the split, from 0. All windows of a passage have the same number.
        article: the title of its article; "" if the file gives none.
        context: the text of the passage or window; None for a closed-book question.
        prefix_ids: tokens that its questions share.
        questions: the questions asked about it.
    """

    passage: int
    article: str
    context: str | None
    prefix_ids: list[int]
    questions: list[EncodedQuestion]

    def tree(self, start: int = 0, stop: int | None = None) -> Tree:
        """Return the passage and its questions [start, stop) as a tree. The key of a branch is its question's id."""
        branches = (Branch(each.prompt_ids, each.answer_ids, each.id) for each in self.questions[start:stop])
        return Tree(self.prefix_ids, tuple(branches))


_TOKENS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [
        ("passage", pa.int64()),
        ("article", pa.string()),
        ("context", pa.string()),
        ("prefix_ids", _TOKENS),
        (
            "questions",
            pa.list_(
                pa.struct(
                    [
                        ("id", pa.string()),
                        ("question", pa.string()),
                        ("answers", pa.list_(pa.string())),
                        ("prompt_ids", _TOKENS),
                        ("answer_ids", _TOKENS),
                    ]
                )
            ),
        ),
    ]
)
ROWS_PER_BATCH = 1024


def write_split(path: Path, passages: Iterable[EncodedPassage]) -> None:
    """Write a split in batches. Equal passages give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        rows: list[dict[str, Any]] = []
        for passage in passages:
            rows.append({**_columns(passage), "questions": [_columns(question) for question in passage.questions]})
            if len(rows) == ROWS_PER_BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, SCHEMA))
                rows = []
        if rows:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, SCHEMA))


def _columns(row: EncodedPassage | EncodedQuestion) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


class Split:
    """The rows of a split (passages or windows), which are read from disk when they are used.

    Attributes:
        passages: for each row, the number of its passage.
        branch_counts: for each row, the number of its questions, each of which becomes a branch of its tree.
    """

    def __init__(self, path: Path) -> None:
        """Map a file into memory.

        Raises:
            InputError: the file is missing, or was not written by `write_split`.
        """
        try:
            with pa.memory_map(str(path)) as source:
                self._table = pa.ipc.open_file(source).read_all()
            if self._table.schema != SCHEMA:
                raise pa.ArrowInvalid("its columns are not those of a split")
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"cannot be read ({first_line(error)})", place=path, fix="run `falcon-job run preprocess`"
            ) from None
        self.passages = np.asarray(self._table["passage"])
        self.branch_counts = np.asarray(pc.list_value_length(self._table["questions"]))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> EncodedPassage:
        """Return the row at `index`, counted from 0."""
        if not 0 <= index < len(self):
            raise IndexError(f"passage {index} of {len(self)}")
        (row,) = self._table.slice(index, 1).to_pylist()
        return _passage(row)

    def __iter__(self) -> Iterator[EncodedPassage]:
        """Yield the rows in order, reading them in batches."""
        for batch in self._table.to_batches(ROWS_PER_BATCH):
            yield from map(_passage, batch.to_pylist())

    def longest_answer(self) -> int:
        """Return the length of the longest answer in tokens, including end-of-text."""
        return max(len(question.answer_ids) for row in self for question in row.questions)


def _passage(row: dict[str, Any]) -> EncodedPassage:
    questions = [EncodedQuestion(**question) for question in row.pop("questions")]
    return EncodedPassage(**row, questions=questions)
