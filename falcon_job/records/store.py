"""Passages on disk, in a temporary SQLite file, so that a question file of any size takes little memory."""

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
CREATE TABLE questions (
    number INTEGER PRIMARY KEY, passage INTEGER, id TEXT UNIQUE, text TEXT, answers TEXT, place TEXT
);
CREATE INDEX of_passage ON questions (passage, number);
CREATE TABLE digests (digest BLOB PRIMARY KEY, passage INTEGER) WITHOUT ROWID;
"""
_EVERYTHING = """
SELECT passage, article, passages.text, id, questions.text, answers
FROM questions JOIN passages ON passages.number = passage
"""


class Passages(Sequence[Passage]):
    """Passages that are read from disk only when they are accessed."""

    @overload
    def __getitem__(self, index: int) -> Passage: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Passage]: ...

    def __getitem__(self, index: int | slice) -> Passage | Sequence[Passage]:
        """Return the passage at an index; for a slice, a `Selection`, which reads nothing yet."""
        chosen = range(len(self))[index]
        return Selection(self, chosen) if isinstance(chosen, range) else self._read(chosen)

    @abstractmethod
    def _read(self, index: int) -> Passage:
        """Return the passage at an index from 0."""


class PassageStore(Passages):
    """Passages in the order in which they were first added, each with its questions."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # an unnamed temporary file, deleted with the connection
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")
        self._size = 0

    def add(self, passage: Passage) -> list[tuple[Question, str]]:
        """Add the questions of a passage to those that are stored for the same article and text.

        A passage that a file repeats, as flat rows do for each question, is therefore stored once. Closed-book
        questions, which have no passage, are never merged.

        Returns:
            The questions that were not added because their id is already used, each with the place of that other use.
        """
        number = self._find_or_create(passage.article, passage.text)
        return [
            (question, self._place_of(question.id))
            for question in passage.questions
            if not self._add_question(number, question)
        ]

    def _find_or_create(self, article: str, text: str | None) -> int:
        """Return the number of the passage with this article and text."""
        if text is None:
            return self._create(article, text)
        digest = blake2b(json.dumps([article, text]).encode(), digest_size=16).digest()
        found = self._db.execute("SELECT passage FROM digests WHERE digest = ?", (digest,)).fetchone()
        if found:
            return int(found[0])
        number = self._create(article, text)
        self._db.execute("INSERT INTO digests VALUES (?, ?)", (digest, number))
        return number

    def _create(self, article: str, text: str | None) -> int:
        self._db.execute("INSERT INTO passages VALUES (?, ?, ?)", (self._size, article, text))
        self._size += 1
        return self._size - 1

    def _add_question(self, passage: int, question: Question) -> bool:
        """Add a question to the passage with this number, unless its id is already used; tell whether it was added."""
        answers = json.dumps([(answer.text, answer.start) for answer in question.answers])
        row = (passage, question.id, question.text, answers, question.place)
        added = self._db.execute(
            "INSERT OR IGNORE INTO questions (passage, id, text, answers, place) VALUES (?, ?, ?, ?, ?)", row
        )
        return added.rowcount == 1

    def _place_of(self, question_id: str) -> str:
        (place,) = self._db.execute("SELECT place FROM questions WHERE id = ?", (question_id,)).fetchone()
        return str(place)

    def __len__(self) -> int:
        return self._size

    def _read(self, index: int) -> Passage:
        (found,) = _passages(self._db.execute(f"{_EVERYTHING} WHERE passage = ? ORDER BY questions.number", (index,)))
        return found

    def __iter__(self) -> Iterator[Passage]:
        return _passages(self._db.execute(f"{_EVERYTHING} ORDER BY passage, questions.number"))


class Selection(Passages):
    """The passages of a sequence at chosen indices."""

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


def _question(question_id: str, text: str, answers: str) -> Question:
    return Question(question_id, text, tuple(Answer(*answer) for answer in json.loads(answers)))
