"""Question files: SQuAD JSON, flat rows (JSON Lines, Parquet) and closed-book pairs (JSON Lines, CSV).

SQuAD v1.1 and v2.0 are described at https://rajpurkar.github.io/SQuAD-explorer, flat rows at
https://huggingface.co/datasets/rajpurkar/squad_v2.
"""

import csv
import io
import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from falcon_job.errors import InputError

_SHOWN_PROBLEMS = 50
_SHOWN_EXAMPLES = 3
_SHOWN_CHARS = 60


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


def read_passages(path: Path) -> list[Passage]:
    """Read and validate a question file; its suffix tells the format.

    `.json` is SQuAD v1.1 or v2.0; `.jsonl` holds flat rows (id, context, question, answers, optional title)
    or closed-book pairs (question, answer, optional id); `.parquet` flat rows; `.csv` pairs, with a header.
    Flat rows of the same title and context make one passage, in order of first appearance. A pair without id
    gets its row number. A passage without questions is left out. Text files are UTF-8, with or without byte
    order mark.

    Raises:
        InputError: the file cannot be read or a record is wrong; one message names all problems and fixes.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path}: unknown suffix {path.suffix!r}; supported are {', '.join(_READERS)}")
    checks = _Checks()
    passages: list[Passage] = []
    try:
        passages = read(path.read_bytes(), checks)
    except OSError as error:
        checks.problems.append(f"cannot be read: {error.strerror}")
    except _UnreadableError as error:
        checks.problems.append(str(error))
    if not checks.problems and not passages:
        checks.problems.append("holds no questions: give at least one")
    if checks.problems:
        raise InputError(_summary(path, checks.problems))
    return passages


def check_disjoint(train: Sequence[Passage], dev: Sequence[Passage]) -> list[str]:
    """Return what two splits share, one line a kind with its count and first examples; empty if nothing.

    Compared are question ids and passages (article and text). Of closed book, where ids may be mere row
    numbers, the texts of the questions are compared instead. Lines quote ids and titles, never other text.
    """
    overlaps = []
    for kind, labels in (
        ("question ids", _ids),
        ("passages", _texts),
        ("closed-book questions", _closed_book),
    ):
        in_dev = labels(dev)
        shared = [label for key, label in labels(train).items() if key in in_dev]
        if shared:
            examples = ", ".join(list(dict.fromkeys(shared))[:_SHOWN_EXAMPLES])
            overlaps.append(f"{kind} in both train and dev: {len(shared)}, such as {examples}")
    return overlaps


def _ids(passages: Sequence[Passage]) -> dict[Hashable, str]:
    open_book = (passage for passage in passages if passage.text is not None)
    return {question.id: _quoted(question.id) for passage in open_book for question in passage.questions}


def _texts(passages: Sequence[Passage]) -> dict[Hashable, str]:
    return {
        (passage.article, passage.text): f"one of article {_quoted(passage.article)}"
        for passage in passages
        if passage.text is not None
    }


def _closed_book(passages: Sequence[Passage]) -> dict[Hashable, str]:
    closed_book = (passage for passage in passages if passage.text is None)
    return {question.text: f"id {_quoted(question.id)}" for passage in closed_book for question in passage.questions}


# What a record must be. Keys that are not named here, such as plausible_answers, are ignored.


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


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Article(_Record):
    title: _Unicode = ""
    paragraphs: list[Any]


class _Paragraph(_Record):
    context: _Text
    qas: list[Any]


class _FlatAnswers(_Record):
    text: list[Any]
    answer_start: list[Any]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.text) != len(self.answer_start):
            raise ValueError(f"has {len(self.text)} text but {len(self.answer_start)} answer_start: pair them")
        return self


class _FlatRow(_Record):
    title: _Unicode | None = None
    context: _Text
    answers: _FlatAnswers


class _Answer(_Record):
    text: _Text
    answer_start: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _stands_in_passage(self, info: ValidationInfo) -> Self:
        passage: str | None = info.context
        if passage is not None and not passage.startswith(self.text, self.answer_start):
            raise ValueError(_misplaced(self.text, self.answer_start, passage))
        return self


class _Question(_Record):
    id: _Text
    question: _Text
    answers: list[_Answer]
    is_impossible: bool = False

    @model_validator(mode="after")
    def _answered_if_possible(self) -> Self:
        if self.is_impossible and self.answers:
            raise ValueError("is impossible but has answers: set is_impossible to false or empty the answers")
        if not self.is_impossible and not self.answers:
            raise ValueError("has no answers: give it one or set is_impossible to true")
        return self


class _Pair(_Record):
    id: _Text | None = None
    question: _Text
    answer: _Text


# What is said of a record that is not so.


def _misplaced(text: str, start: int, passage: str) -> str:
    """Say that `text` does not stand at `start`, and where it does."""
    wrong = f"has {_quoted(text)}, which is not at answer_start {start}"
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
        message += f", not {_quoted(problem['input'])}"
    return f"{key} {message}" if key else message


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    shown = text[:_SHOWN_CHARS]
    return (repr(shown) if isinstance(value, str) else shown) + "..." * (len(text) > _SHOWN_CHARS)


def _named(kind: str, number: int, name: Any) -> str:
    return f"{kind} {number}" + (f" {_quoted(name)}" if isinstance(name, str) and name.strip() else "")


def _summary(path: Path, problems: Sequence[str]) -> str:
    lines = [f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}"]
    lines += [f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"  ... and {len(problems) - _SHOWN_PROBLEMS} more")
    return "\n".join(lines)


_R = TypeVar("_R", bound=_Record)


@dataclass
class _Checks:
    """What is wrong with a file so far, and which record has which question id."""

    problems: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    def record(self, model: type[_R], content: Any, where: str, passage: str | None = None) -> _R | None:
        """Return `content` as a `model`, or None after noting what is wrong with it."""
        try:
            return model.model_validate(content, context=passage)
        except ValidationError as error:
            self.problems += [f"{where}: {_explain(dict(problem))}" for problem in error.errors()]
            return None

    def question(self, content: Any, where: str, passage: str | None) -> Question | None:
        """Return a question about `passage`, or None after noting what is wrong with it."""
        self.unique(_get(content, "id"), where)
        record = self.record(_Question, content, where, passage)
        if record is None:
            return None
        answers = tuple(Answer(answer.text, answer.answer_start) for answer in record.answers)
        return Question(record.id, record.question, answers)

    def unique(self, name: Any, where: str) -> None:
        """Note a question id that an earlier record has."""
        if not isinstance(name, str):
            return
        if name in self.places:
            self.problems.append(f"{where}: id {_quoted(name)} is taken by {self.places[name]}: give it its own")
        self.places.setdefault(name, where)


# The formats.


class _UnreadableError(Exception):
    """The file, or a line of it, is not what the suffix says."""


def _read_squad(data: bytes, checks: _Checks) -> list[Passage]:
    passages = []
    for number, article in enumerate(_squad_articles(_text(data))):
        title = _get(article, "title")
        where = _named("article", number, title)
        checks.record(_Article, article, where)
        for index, paragraph in enumerate(_items(article, "paragraphs")):
            questions = _squad_questions(paragraph, f"{where}, paragraph {index}", checks)
            if questions:
                passages.append(Passage(title or "", _get(paragraph, "context"), questions))
    return passages


def _squad_articles(text: str) -> list[Any]:
    try:
        articles = _get(_parse_json(text), "data")
        if isinstance(articles, list):
            return articles
        raise _UnreadableError('is no SQuAD document: it needs an object with "data", a list of articles')
    except _UnreadableError:
        if _starts_with_row(text):
            raise _UnreadableError("is JSON Lines, not one SQuAD document: rename it to .jsonl") from None
        raise


def _starts_with_row(text: str) -> bool:
    try:
        row = _parse_json(text.lstrip().split("\n", 1)[0])
    except _UnreadableError:
        return False
    return _get(row, "question") is not None


def _squad_questions(paragraph: Any, where: str, checks: _Checks) -> tuple[Question, ...]:
    record = checks.record(_Paragraph, paragraph, where)
    questions = (
        checks.question(
            content,
            f"{where}, {_named('question', index, _get(content, 'id'))}",
            record.context if record else None,
        )
        for index, content in enumerate(_items(paragraph, "qas"))
    )
    return tuple(question for question in questions if question)


def _read_json_lines(data: bytes, checks: _Checks) -> list[Passage]:
    rows = []
    for number, line in enumerate(_text(data).split("\n"), start=1):
        try:
            if line.strip():
                rows.append((number, _parse_json(line, number)))
        except _UnreadableError as error:
            checks.problems.append(str(error))
    kinds = [_row_kind(row) for _, row in rows]
    if "document" in kinds:
        raise _UnreadableError("holds a SQuAD document, not JSON Lines: rename it to .json")
    if {"flat", "pair"} <= set(kinds):
        flat, pair = (rows[kinds.index(kind)][0] for kind in ("flat", "pair"))
        raise _UnreadableError(
            f"mixes rows with a passage (line {flat}) and closed-book pairs (line {pair}): split it in two"
        )
    named = [(_named("line", number, _get(row, "id")), number, row) for number, row in rows]
    return _pairs(named, checks) if "pair" in kinds else _flat_passages(named, checks)


def _row_kind(row: Any) -> str | None:
    """Tell by its keys what a row is; None where they leave it open."""
    marks = {"context": "flat", "answers": "flat", "answer": "pair", "data": "document"}
    return next((kind for key, kind in marks.items() if isinstance(row, dict) and key in row), None)


def _read_csv(data: bytes, checks: _Checks) -> list[Passage]:
    table = csv.DictReader(io.StringIO(_text(data), newline=""), strict=True)
    rows = []
    try:
        _require_columns(("question", "answer"), table.fieldnames or [])
        for number, row in enumerate(table, start=1):
            where = _named("row", number, row.get("id"))
            if None in row:
                checks.problems.append(f"{where}: has more cells than the header: put texts with commas in quotes")
            rows.append((where, number, {key: cell for key, cell in row.items() if cell is not None}))
    except csv.Error as error:
        checks.problems.append(f"line {table.reader.line_num}: no valid CSV ({error}): correct its quotes")
    return _pairs(rows, checks)


def _read_parquet(data: bytes, checks: _Checks) -> list[Passage]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    needed = ("id", "context", "question", "answers")
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        _require_columns(needed, names)
        rows = file.read([*needed, *({"title"} & set(names))]).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise _UnreadableError(f"is no complete Parquet file ({reason}): copy or export it again") from error
    named = [(_named("row", number, row["id"]), number, row) for number, row in enumerate(rows, start=1)]
    return _flat_passages(named, checks)


def _require_columns(needed: Sequence[str], names: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in names]:
        raise _UnreadableError(
            f"has no column {', '.join(missing)}: it needs {', '.join(needed)} and has {', '.join(names)}"
        )


_Row = tuple[str, int, Any]
"""Where it is, in words; its number, from 1; what it holds."""


def _flat_passages(rows: Iterable[_Row], checks: _Checks) -> list[Passage]:
    groups: dict[tuple[str, str], list[Question]] = {}
    for where, _, content in rows:
        row = checks.record(_FlatRow, content, where)
        if isinstance(content, dict):
            question = checks.question(_nested(content), where, row.context if row else None)
            if row and question:
                groups.setdefault((row.title or "", row.context), []).append(question)
    return [Passage(title, context, tuple(questions)) for (title, context), questions in groups.items()]


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """Return a flat row as a SQuAD v2.0 question."""
    texts, starts = (_items(row.get("answers"), key) for key in ("text", "answer_start"))
    answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=False)]
    return {**row, "answers": answers, "is_impossible": not answers}


def _pairs(rows: Iterable[_Row], checks: _Checks) -> list[Passage]:
    passages = []
    for where, number, content in rows:
        checks.unique(_get(content, "id") or str(number), where)
        pair = checks.record(_Pair, content, where)
        if pair:
            question = Question(pair.id or str(number), pair.question, (Answer(pair.answer, None),))
            passages.append(Passage("", None, (question,)))
    return passages


def _text(data: bytes) -> str:
    """Decode a text file."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"byte {error.start} is no UTF-8: save the file as UTF-8") from None
    if not text.strip():
        raise _UnreadableError("is empty: give at least one question")
    return text


def _parse_json(text: str, line: int = 1) -> Any:
    """Parse `text`, which starts at `line` of its file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1}, column {error.colno}"
        raise _UnreadableError(f"{place}: no valid JSON ({error.msg}): correct it") from None
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(f"line {line}: JSON that cannot be read ({error}): correct it") from None


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, dict) else None


def _items(content: Any, key: str) -> list[Any]:
    value = _get(content, key)
    return value if isinstance(value, list) else []


_READERS = {".json": _read_squad, ".jsonl": _read_json_lines, ".parquet": _read_parquet, ".csv": _read_csv}
