"""What is asked: passages, their questions, and the answers that are accepted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """A gold answer."""

    text: str
    start: int | None
    """Where it stands in the passage, in characters from 0; None in closed book."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its gold answers; without any it is unanswerable."""

    id: str
    text: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage with its questions; closed book has no text and one question each."""

    article: str
    """Its title; "" where the file gives none."""
    text: str | None
    questions: tuple[Question, ...]
