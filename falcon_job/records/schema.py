"""The schema of each kind of record in a question file, and the problems of records that do not match it."""

from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from falcon_job.errors import Problem
from falcon_job.records.passage import Answer, Question
from falcon_job.validation import WrongValueError, explain, quoted


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WrongValueError(
            f"has an unpaired surrogate at character {error.start}", "write both halves of the pair, or remove it"
        ) from None
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise WrongValueError("is only whitespace" if text else "is empty", "fill it in")
    return text


_Unicode = Annotated[str, AfterValidator(_unicode)]
_Text = Annotated[_Unicode, AfterValidator(_not_blank)]


class Record(BaseModel):
    """A record. Keys that are not listed, such as plausible_answers, are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


class ArticleRecord(Record):
    """A SQuAD article."""

    title: _Unicode = ""
    paragraphs: list[Any]


class ParagraphRecord(Record):
    """A SQuAD paragraph."""

    context: _Text
    qas: list[Any]


class FlatAnswersRecord(Record):
    """The answers of a flat row: their texts in one list, their offsets in another."""

    text: list[Any]
    answer_start: list[Any]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.text) != len(self.answer_start):
            raise WrongValueError(
                f"has {len(self.text)} value(s) in text but {len(self.answer_start)} in answer_start",
                "give one of each per answer",
            )
        return self


class FlatRowRecord(Record):
    """A flat row without its question, which `QuestionRecord` checks."""

    title: _Unicode | None = None
    context: _Text
    answers: FlatAnswersRecord


class AnswerRecord(Record):
    """An answer. If the passage is given as the validation context, the answer must occur in it at `answer_start`."""

    text: _Text
    answer_start: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _occurs_in_passage(self, info: ValidationInfo) -> Self:
        passage: str | None = info.context
        if passage is not None and not passage.startswith(self.text, self.answer_start):
            raise _misplaced(self.text, self.answer_start, passage)
        return self


class QuestionRecord(Record):
    """A question that either has answers or is marked impossible."""

    id: _Text
    question: _Text
    answers: list[AnswerRecord]
    is_impossible: bool = False

    @model_validator(mode="after")
    def _answered_if_possible(self) -> Self:
        if self.is_impossible and self.answers:
            raise WrongValueError("is impossible, but has answers", "set is_impossible to false, or remove the answers")
        if not self.is_impossible and not self.answers:
            raise WrongValueError("has no answers", "add one, or set is_impossible to true")
        return self


class PairRecord(Record):
    """A closed-book question with its answer."""

    id: _Text | None = None
    question: _Text
    answer: _Text


_R = TypeVar("_R", bound=Record)


def validated(model: type[_R], content: Any, place: str, passage: str | None = None) -> tuple[_R | None, list[Problem]]:
    """Return `content` as a `model` and no problems, or None and its problems.

    Args:
        model: the schema that it must match.
        content: the parsed record.
        place: where it is in the file, for the problems.
        passage: the text in which its answers must occur, if there is one.
    """
    try:
        return model.model_validate(content, context=passage), []
    except ValidationError as error:
        return None, explain(error, place=place)


def validated_question(content: Any, place: str, passage: str | None) -> tuple[Question | None, list[Problem]]:
    """Return a question in the shape of SQuAD v2.0 as a `Question` about `passage`, or None and its problems."""
    record, problems = validated(QuestionRecord, content, place, passage)
    if record is None:
        return None, problems
    answers = tuple(Answer(answer.text, answer.answer_start) for answer in record.answers)
    return Question(record.id, record.question, answers, place), []


def _misplaced(text: str, start: int, passage: str) -> WrongValueError:
    """Return the error for an answer that is not at `start`. Its fix gives the nearest offset where it is."""
    wrong = f"has {quoted(text)}, which is not at answer_start {start}"
    if start >= len(passage):
        wrong += f" (the passage has {len(passage)} characters)"
    neighbours = (passage.rfind(text, 0, start + len(text)), passage.find(text, start))
    offsets = [offset for offset in neighbours if offset >= 0]
    if not offsets:
        return WrongValueError(f"{wrong} or anywhere else in the passage", "copy it from there exactly")
    nearest = min(offsets, key=lambda offset: abs(offset - start))
    return WrongValueError(
        f"{wrong} but at {nearest}", f"set answer_start to {nearest} (it counts characters, not bytes, from 0)"
    )
