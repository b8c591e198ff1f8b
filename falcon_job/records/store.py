"""Validated passages on disk: a question file of any size is read through SQLite's own temporary file, not held."""

import json
import sqlite3
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any, overload

from falcon_job.records.passage import Answer, Passage, Question

_TABLES = """
PRAGMA journal_mode = off;
PRAGMA cache_size = -32768;
CREATE TABLE passages (number INTEGER PRIMARY KEY, article TEXT, text TEXT);
CREATE TABLE questions (number INTEGER PRIMARY KEY, passage INTEGER, id TEXT, text TEXT, answers TEXT);
CREATE INDEX of_passage ON questions (passage, number);
CREATE TABLE merged (digest BLOB PRIMARY KEY, passage INTEGER) WITHOUT ROWID;
CREATE TABLE places (id BLOB PRIMARY KEY, place TEXT) WITHOUT ROWID;
"""
_EVERYTHING = """
SELECT passage, article, passages.text, id, questions.text, answers
FROM questions JOIN passages ON passages.number = passage
"""


class Passages(Sequence[Passage]):
    """Passages that are read as they are asked for."""

    @overload
    def __getitem__(self, index: int) -> Passage: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Passage]: ...

    def __getitem__(self, index: int | slice) -> Passage | Sequence[Passage]:
        """Return the passage at an index, or those of a slice, which are not read yet."""
        place = range(len(self))[index]
        return Selection(self, place) if isinstance(place, range) else self._read(place)

    @abstractmethod
    def _read(self, index: int) -> Passage:
        """Return the passage at an index from 0."""


class Spool(Passages):
    """Passages in the order in which they were added, each with its questions."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # a file without a name, gone with the connection
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")
        self._size = 0

    def add(self, passage: Passage) -> None:
        """Add the questions of a passage to those that are stored for the same article and text.

        Closed-book questions, which have no text, each stay alone.
        """
        self._ask(self._find_or_create(passage.article, passage.text), passage.questions)

    def _find_or_create(self, article: str, text: str | None) -> int:
        """Return the number of the passage with this article and text."""
        if text is None:
            return self._new(article, text)
        digest = blake2b(json.dumps([article, text]).encode(), digest_size=16).digest()
        found = self._db.execute("SELECT passage FROM merged WHERE digest = ?", (digest,)).fetchone()
        if found:
            return int(found[0])
        number = self._new(article, text)
        self._db.execute("INSERT INTO merged VALUES (?, ?)", (digest, number))
        return number

    def claim(self, name: str, place: str) -> str | None:
        """Note where a question id stands; return where it stood before, if it did."""
        key = name.encode("utf-8", "surrogatepass")
        taken = self._db.execute("INSERT OR IGNORE INTO places VALUES (?, ?)", (key, place)).rowcount == 0
        if not taken:
            return None
        (before,) = self._db.execute("SELECT place FROM places WHERE id = ?", (key,)).fetchone()
        return str(before)

    def _new(self, article: str, text: str | None) -> int:
        self._db.execute("INSERT INTO passages VALUES (?, ?, ?)", (self._size, article, text))
        self._size += 1
        return self._size - 1

    def _ask(self, passage: int, questions: Iterable[Question]) -> None:
        rows = [(passage, q.id, q.text, json.dumps([(a.text, a.start) for a in q.answers])) for q in questions]
        self._db.executemany("INSERT INTO questions (passage, id, text, answers) VALUES (?, ?, ?, ?)", rows)

    def __len__(self) -> int:
        return self._size

    def _read(self, index: int) -> Passage:
        (found,) = _passages(self._db.execute(f"{_EVERYTHING} WHERE passage = ? ORDER BY questions.number", (index,)))
        return found

    def __iter__(self) -> Iterator[Passage]:
        return _passages(self._db.execute(f"{_EVERYTHING} ORDER BY passage, questions.number"))


class Selection(Passages):
    """Some of many passages."""

    def __init__(self, passages: Sequence[Passage], chosen: Sequence[int]) -> None:
        self._passages = passages
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def _read(self, index: int) -> Passage:
        return self._passages[self._chosen[index]]


def _passages(rows: Iterable[Sequence[Any]]) -> Iterator[Passage]:
    for (_, article, text), questions in groupby(rows, key=lambda row: tuple(row[:3])):
        yield Passage(article, text, tuple(_question(*row[3:]) for row in questions))


def _question(name: str, text: str, answers: str) -> Question:
    return Question(name, text, tuple(Answer(*answer) for answer in json.loads(answers)))
