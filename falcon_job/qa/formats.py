"""The formats of question files: SQuAD JSON, flat rows (JSON Lines, Parquet), closed-book pairs (JSON Lines, CSV).

SQuAD v1.1 and v2.0 are described at https://rajpurkar.github.io/SQuAD-explorer, flat rows at
https://huggingface.co/datasets/rajpurkar/squad_v2.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from falcon_job.qa.passage import Answer, Passage, Question
from falcon_job.qa.records import (
    ArticleRecord,
    Checks,
    FlatRowRecord,
    PairRecord,
    ParagraphRecord,
    get_key,
    named,
)


class UnreadableError(Exception):
    """The file, or a line of it, is not what the suffix says."""


def _read_squad(data: bytes, checks: Checks) -> list[Passage]:
    passages = []
    for number, article in enumerate(_squad_articles(_text(data))):
        title = get_key(article, "title")
        where = named("article", number, title)
        checks.record(ArticleRecord, article, where)
        for index, paragraph in enumerate(_items(article, "paragraphs")):
            questions = _squad_questions(paragraph, f"{where}, paragraph {index}", checks)
            if questions:
                passages.append(Passage(title or "", get_key(paragraph, "context"), questions))
    return passages


def _squad_articles(text: str) -> list[Any]:
    try:
        articles = get_key(_parse_json(text), "data")
        if isinstance(articles, list):
            return articles
        raise UnreadableError('is no SQuAD document: it needs an object with "data", a list of articles')
    except UnreadableError:
        if _starts_with_row(text):
            raise UnreadableError("is JSON Lines, not one SQuAD document: rename it to .jsonl") from None
        raise


def _starts_with_row(text: str) -> bool:
    try:
        row = _parse_json(text.lstrip().split("\n", 1)[0])
    except UnreadableError:
        return False
    return get_key(row, "question") is not None


def _squad_questions(paragraph: Any, where: str, checks: Checks) -> tuple[Question, ...]:
    record = checks.record(ParagraphRecord, paragraph, where)
    questions = (
        checks.question(
            content,
            f"{where}, {named('question', index, get_key(content, 'id'))}",
            record.context if record else None,
        )
        for index, content in enumerate(_items(paragraph, "qas"))
    )
    return tuple(question for question in questions if question)


def _read_json_lines(data: bytes, checks: Checks) -> list[Passage]:
    rows = []
    for number, line in enumerate(_text(data).split("\n"), start=1):
        try:
            if line.strip():
                rows.append((number, _parse_json(line, number)))
        except UnreadableError as error:
            checks.problems.append(str(error))
    kinds = [_row_kind(row) for _, row in rows]
    if "document" in kinds:
        raise UnreadableError("holds a SQuAD document, not JSON Lines: rename it to .json")
    if {"flat", "pair"} <= set(kinds):
        flat, pair = (rows[kinds.index(kind)][0] for kind in ("flat", "pair"))
        raise UnreadableError(
            f"mixes rows with a passage (line {flat}) and closed-book pairs (line {pair}): split it in two"
        )
    places = [(named("line", number, get_key(row, "id")), number, row) for number, row in rows]
    return _pairs(places, checks) if "pair" in kinds else _flat_passages(places, checks)


def _row_kind(row: Any) -> str | None:
    """Tell by its keys what a row is; None where they leave it open."""
    marks = {"context": "flat", "answers": "flat", "answer": "pair", "data": "document"}
    return next((kind for key, kind in marks.items() if isinstance(row, dict) and key in row), None)


def _read_csv(data: bytes, checks: Checks) -> list[Passage]:
    table = csv.DictReader(io.StringIO(_text(data), newline=""), strict=True)
    rows = []
    try:
        _require_columns(("question", "answer"), table.fieldnames or [])
        for number, row in enumerate(table, start=1):
            where = named("row", number, row.get("id"))
            if None in row:
                checks.problems.append(f"{where}: has more cells than the header: put texts with commas in quotes")
            rows.append(
                (where, number, {key: cell for key, cell in row.items() if cell is not None and (cell or key != "id")})
            )
    except csv.Error as error:
        checks.problems.append(f"line {table.reader.line_num}: no valid CSV ({error}): correct its quotes")
    return _pairs(rows, checks)


def _read_parquet(data: bytes, checks: Checks) -> list[Passage]:
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
        raise UnreadableError(f"is no complete Parquet file ({reason}): copy or export it again") from error
    places = [(named("row", number, row["id"]), number, row) for number, row in enumerate(rows, start=1)]
    return _flat_passages(places, checks)


def _require_columns(needed: Sequence[str], names: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in names]:
        raise UnreadableError(
            f"has no column {', '.join(missing)}: it needs {', '.join(needed)} and has {', '.join(names)}"
        )


_Row = tuple[str, int, Any]
"""Where it is, in words; its number, from 1; what it holds."""


def _flat_passages(rows: Iterable[_Row], checks: Checks) -> list[Passage]:
    groups: dict[tuple[str, str], list[Question]] = {}
    for where, _, content in rows:
        row = checks.record(FlatRowRecord, content, where)
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


def _pairs(rows: Iterable[_Row], checks: Checks) -> list[Passage]:
    passages = []
    for where, number, content in rows:
        checks.unique(get_key(content, "id") or str(number), where)
        pair = checks.record(PairRecord, content, where)
        if pair:
            question = Question(pair.id or str(number), pair.question, (Answer(pair.answer, None),))
            passages.append(Passage("", None, (question,)))
    return passages


def _text(data: bytes) -> str:
    """Decode a text file."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"byte {error.start} is no UTF-8: save the file as UTF-8") from None
    if not text.strip():
        raise UnreadableError("is empty: give at least one question")
    return text


def _parse_json(text: str, line: int = 1) -> Any:
    """Parse `text`, which starts at `line` of its file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1}, column {error.colno}"
        raise UnreadableError(f"{place}: no valid JSON ({error.msg}): correct it") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"line {line}: JSON that cannot be read ({error}): correct it") from None


def _items(content: Any, key: str) -> list[Any]:
    value = get_key(content, key)
    return value if isinstance(value, list) else []


READERS = {".json": _read_squad, ".jsonl": _read_json_lines, ".parquet": _read_parquet, ".csv": _read_csv}
