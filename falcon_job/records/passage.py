"""The content of a question file: passages, questions about them, and accepted answers."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """An accepted answer.

    Attributes:
        text: the answer itself.
        start: index of its first character in the passage; None for a closed-book question.
    """

    text: str
    start: int | None


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its accepted answers; without any it is unanswerable.

    Attributes:
        id: unique in its file.
        text: the question.
        answers: training uses the first; scoring accepts all.
        place: where it is in its file, for error messages; "" after the file has been read.
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
        text: the passage; None for a closed-book question, which has a `Passage` of its own.
        questions: at least one.
    """

    article: str
    text: str | None
    questions: tuple[Question, ...]
