"""Read a question file: store its passages on disk, or report everything that is wrong with it."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from falcon_job.errors import InputError, JobError, Problem, ProblemList
from falcon_job.records.passage import Passage
from falcon_job.records.readers import READERS, Reader
from falcon_job.records.readers.text import THE_FILE, UnreadableError
from falcon_job.records.store import PassageStore
from falcon_job.validation import quoted


def read_passages(path: Path) -> Sequence[Passage]:
    """Read and check a question file. Its suffix tells the format:

    - `.json`: SQuAD v1.1 or v2.0
    - `.jsonl`: flat rows (id, context, question, answers, optionally title) or closed-book pairs (question, answer,
      optionally id)
    - `.parquet`: flat rows
    - `.csv`: closed-book pairs below a header

    Text files are UTF-8, with or without a byte order mark.

    Questions with the same title and context become one passage, at the place of the first. A pair without an id gets
    its row number as id. Passages without questions are skipped. Passages are kept on disk, not in memory.

    Raises:
        InputError: the file cannot be read, or records are wrong; one message lists all problems. Duplicate ids are
            only reported among records that are otherwise valid.
        JobError: the disk has too little space for its passages.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(
            f"has the unknown suffix {path.suffix!r}", place=path, fix=f"use a file that ends in {', '.join(READERS)}"
        )
    store, problems = PassageStore(), ProblemList()
    try:
        for found in _passages_and_problems(read, path):
            if isinstance(found, Problem):
                problems.add(found)
            else:
                problems.extend(_add(found, store))
    except sqlite3.OperationalError as error:
        raise JobError(
            f"does not fit into SQLite's temporary files ({error})",
            place=path,
            fix="free disk space, or set SQLITE_TMPDIR to a folder with more of it",
        ) from None
    if not store and not problems:
        problems.add(Problem("has no questions", THE_FILE, "add at least one"))
    if problems:
        raise InputError.listing(path, problems)
    return store


def _passages_and_problems(read: Reader, path: Path) -> Iterator[Passage | Problem]:
    """Yield what a reader yields and, if it stopped early, the reason as the last problem."""
    try:
        yield from read(path)
    except UnreadableError as error:
        yield error.problem
    except OSError as error:
        yield Problem(f"cannot be read ({error.strerror})", THE_FILE, "check its name and its permissions")


def _add(passage: Passage, store: PassageStore) -> list[Problem]:
    """Store a passage; return a problem for each of its questions whose id is already used."""
    return [
        Problem(f"is already used by {place}", f"{question.place}: id {quoted(question.id)}", "use another id")
        for question, place in store.add(passage)
    ]
