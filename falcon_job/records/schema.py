"""What a record of a question file must be, and what is said of one that is not so."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from falcon_job.records.passage import Answer, Question
from falcon_job.records.store import Spool

_SHOWN_PROBLEMS = 50
_SHOWN_CHARS = 60


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"has half a surrogate pair at character {error.start}: write it whole") from None
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is only whitespace: give it text" if text else "is empty: give it text")
    return text


_Unicode = Annotated[str, AfterValidator(_whole)]
_Text = Annotated[_Unicode, AfterValidator(_filled)]


class Record(BaseModel):
    """A record; keys that are not named, such as plausible_answers, are ignored."""

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
    """The answers of a flat row, texts and offsets in two lists."""

    text: list[Any]
    answer_start: list[Any]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.text) != len(self.answer_start):
            raise ValueError(f"has {len(self.text)} text but {len(self.answer_start)} answer_start: pair them")
        return self


class FlatRowRecord(Record):
    """A flat row, but for its question."""

    title: _Unicode | None = None
    context: _Text
    answers: FlatAnswersRecord


class AnswerRecord(Record):
    """An answer; validated with the passage as context, it must stand in it."""

    text: _Text
    answer_start: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _stands_in_passage(self, info: ValidationInfo) -> Self:
        passage: str | None = info.context
        if passage is not None and not passage.startswith(self.text, self.answer_start):
            raise ValueError(_misplaced(self.text, self.answer_start, passage))
        return self


class QuestionRecord(Record):
    """A question, answered or impossible."""

    id: _Text
    question: _Text
    answers: list[AnswerRecord]
    is_impossible: bool = False

    @model_validator(mode="after")
    def _answered_if_possible(self) -> Self:
        if self.is_impossible and self.answers:
            raise ValueError("is impossible but has answers: set is_impossible to false or empty the answers")
        if not self.is_impossible and not self.answers:
            raise ValueError("has no answers: give it one or set is_impossible to true")
        return self


class PairRecord(Record):
    """A closed-book pair."""

    id: _Text | None = None
    question: _Text
    answer: _Text


def _misplaced(text: str, start: int, passage: str) -> str:
    """Say that `text` does not stand at `start`, and where it does."""
    wrong = f"has {quoted(text)}, which is not at answer_start {start}"
    if start >= len(passage):
        wrong += f" (beyond the passage's {len(passage)} characters)"
    neighbours = (passage.rfind(text, 0, start + len(text)), passage.find(text, start))
    offsets = [offset for offset in neighbours if offset >= 0]
    if not offsets:
        return f"{wrong} and does not occur in the passage: copy it from there, letter by letter"
    nearest = min(offsets, key=lambda offset: abs(offset - start))
    return f"{wrong} but at {nearest}: set answer_start to that (characters, not bytes, from 0)"


_EXPLANATIONS = {
    "missing": "is missing: add it",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "greater_than_equal": "must be 0 or more",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be an object with named values",
}


def _explain(problem: dict[str, Any]) -> str:
    """One line for one pydantic error: the key, what is wrong, the value where it is of the wrong kind."""
    kind = problem["type"]
    key = ".".join(map(str, problem["loc"]))
    message = _EXPLANATIONS.get(kind, problem["msg"].removeprefix("Value error, "))
    if kind in _EXPLANATIONS and kind != "missing":
        message += f", not {quoted(problem['input'])}"
    return f"{key} {message}" if key else message


def quoted(value: object) -> str:
    """Return a value as an error shows it, cut where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    shown = text[:_SHOWN_CHARS]
    return (repr(shown) if isinstance(value, str) else shown) + "..." * (len(text) > _SHOWN_CHARS)


def named(kind: str, number: int, name: Any) -> str:
    """Return how errors call a record: what it is, its number, its name if it has one."""
    return f"{kind} {number}" + (f" {quoted(name)}" if isinstance(name, str) and name.strip() else "")


def summary(path: Path, problems: Sequence[str]) -> str:
    """Return the message of a file's problems: their number, then a line each."""
    lines = [f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}"]
    lines += [f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"  ... and {len(problems) - _SHOWN_PROBLEMS} more")
    return "\n".join(lines)


_R = TypeVar("_R", bound=Record)


@dataclass
class Checks:
    """What is wrong with a file so far, and what is right."""

    problems: list[str] = field(default_factory=list)
    spool: Spool = field(default_factory=Spool)

    def record(self, model: type[_R], content: Any, where: str, passage: str | None = None) -> _R | None:
        """Return `content` as a `model`, or None after noting what is wrong with it."""
        try:
            return model.model_validate(content, context=passage)
        except ValidationError as error:
            self.problems += [f"{where}: {_explain(dict(problem))}" for problem in error.errors()]
            return None

    def question(self, content: Any, where: str, passage: str | None) -> Question | None:
        """Return a question about `passage`, or None after noting what is wrong with it."""
        self.unique(get_key(content, "id"), where)
        record = self.record(QuestionRecord, content, where, passage)
        if record is None:
            return None
        answers = tuple(Answer(answer.text, answer.answer_start) for answer in record.answers)
        return Question(record.id, record.question, answers)

    def unique(self, name: Any, where: str) -> None:
        """Note a question id that an earlier record has."""
        if not isinstance(name, str):
            return
        before = self.spool.claim(name, where)
        if before is not None:
            self.problems.append(f"{where}: id {quoted(name)} is taken by {before}: give it its own")


def get_key(content: Any, key: str) -> Any:
    """Return a key of what may be no mapping; None without it."""
    return content.get(key) if isinstance(content, dict) else None
