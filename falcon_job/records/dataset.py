"""Read question files whole, or report all that is wrong with them; compare two splits."""

import sqlite3
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from falcon_job.errors import InputError, JobError
from falcon_job.records.passage import Passage
from falcon_job.records.readers import READERS, UnreadableError
from falcon_job.records.schema import Checks, quoted, summary

_SHOWN_EXAMPLES = 3


def read_passages(path: Path) -> Sequence[Passage]:
    """Read and validate a question file; its suffix tells the format.

    `.json` is SQuAD v1.1 or v2.0; `.jsonl` holds flat rows (id, context, question, answers, optional title)
    or closed-book pairs (question, answer, optional id); `.parquet` flat rows; `.csv` pairs, with a header.
    Flat rows of the same title and context make one passage, in order of first appearance. A pair without id
    gets its row number. A passage without questions is left out. Text files are UTF-8, with or without byte
    order mark.

    Raises:
        InputError: the file cannot be read or a record is wrong; one message names all problems and fixes.
        JobError: its passages find no room on disk.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path}: unknown suffix {path.suffix!r}; supported are {', '.join(READERS)}")
    checks = Checks()
    try:
        read(path, checks)
    except OSError as error:
        checks.problems.append(f"cannot be read: {error.strerror}")
    except UnreadableError as error:
        checks.problems.append(str(error))
    except sqlite3.OperationalError as error:
        raise JobError(
            f"{path}: what is read of it finds no room among SQLite's temporary files ({error}): make room, or set "
            "SQLITE_TMPDIR to a folder that has some"
        ) from None
    if not checks.problems and not checks.spool:
        checks.problems.append("holds no questions: give at least one")
    if checks.problems:
        raise InputError(summary(path, checks.problems))
    return checks.spool


def check_disjoint(train: Sequence[Passage], dev: Sequence[Passage]) -> list[str]:
    """Return what two splits share, one line a kind with its count and first examples; empty if nothing.

    Compared are question ids and passages (article and text). Of closed book, where ids may be mere row
    numbers, the texts of the questions are compared instead. Lines quote ids and titles, never other text.
    """
    overlaps = []
    for kind, labelled in (
        ("question ids", _ids),
        ("passages", _texts),
        ("closed-book questions", _closed_book),
    ):
        in_dev = {key for key, _ in labelled(dev)}
        shared = {key: label for key, label in labelled(train) if key in in_dev}
        if shared:
            examples = ", ".join(list(dict.fromkeys(shared.values()))[:_SHOWN_EXAMPLES])
            overlaps.append(f"{kind} in both train and dev: {len(shared)}, such as {examples}")
    return overlaps


_Labelled = Iterator[tuple[Hashable, str]]
"""What to compare by, and what to call it."""


def _ids(passages: Sequence[Passage]) -> _Labelled:
    open_book = (passage for passage in passages if passage.text is not None)
    return ((question.id, quoted(question.id)) for passage in open_book for question in passage.questions)


def _texts(passages: Sequence[Passage]) -> _Labelled:
    open_book = (passage for passage in passages if passage.text is not None)
    return (((p.article, p.text), f"one of article {quoted(p.article)}") for p in open_book)


def _closed_book(passages: Sequence[Passage]) -> _Labelled:
    closed_book = (passage for passage in passages if passage.text is None)
    return ((question.text, f"id {quoted(question.id)}") for passage in closed_book for question in passage.questions)
