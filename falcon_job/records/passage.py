"""What a question file holds: passages, the questions about them, and the accepted answers."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """An accepted answer.

    Attributes:
        text: its words.
        start: where it begins in the passage, in characters from 0; None in closed book.
    """

    text: str
    start: int | None


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its accepted answers; without any it is unanswerable.

    Attributes:
        id: unique in its file.
        text: the question.
        answers: the first one is learned, all are scored against.
        place: where it stands in its file, for errors; "" once the file is read.
    """

    id: str
    text: str
    answers: tuple[Answer, ...]
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage with its questions.

    Attributes:
        article: the title of its article; "" if the file gives none.
        text: the passage; None for a closed-book question, which stands alone.
        questions: at least one.
    """

    article: str
    text: str | None
    questions: tuple[Question, ...]
