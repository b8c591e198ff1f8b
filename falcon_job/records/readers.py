"""The formats of question files: SQuAD JSON, flat rows (JSON Lines, Parquet), closed-book pairs (JSON Lines, CSV).

SQuAD v1.1 and v2.0 are described at https://rajpurkar.github.io/SQuAD-explorer, flat rows at
https://huggingface.co/datasets/rajpurkar/squad_v2.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from falcon_job.records.passage import Answer, Passage, Question
from falcon_job.records.schema import (
    ArticleRecord,
    Checks,
    FlatRowRecord,
    PairRecord,
    ParagraphRecord,
    get_key,
    named,
)

LARGEST_DOCUMENT = 128_000_000
"""Bytes of one JSON document: three times SQuAD 2.0's."""
ROWS_AT_A_TIME = 1024

_Row = tuple[str, int, Any]
"""Where it is, in words; its number, from 1; what it holds."""


class UnreadableError(Exception):
    """The file, or a line of it, is not what the suffix says."""


def _read_squad(path: Path, checks: Checks) -> None:
    for number, article in enumerate(_squad_articles(_whole_text(path))):
        title = get_key(article, "title")
        where = named("article", number, title)
        record = checks.record(ArticleRecord, article, where)
        for index, paragraph in enumerate(_items(article, "paragraphs")):
            _take_paragraph(paragraph, f"{where}, paragraph {index}", record.title if record else "", checks)


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


def _take_paragraph(paragraph: Any, where: str, title: str, checks: Checks) -> None:
    record = checks.record(ParagraphRecord, paragraph, where)
    context = record.context if record else None
    found = (
        checks.question(content, f"{where}, {named('question', index, get_key(content, 'id'))}", context)
        for index, content in enumerate(_items(paragraph, "qas"))
    )
    questions = tuple(question for question in found if question)
    if record and questions:
        checks.spool.add(Passage(title, record.context, questions))


def _read_json_lines(path: Path, checks: Checks) -> None:
    for kind, row in _of_one_kind(_json_lines(path, checks)):
        (_take_pair if kind == "pair" else _take_flat)(row, checks)


def _json_lines(path: Path, checks: Checks) -> Iterator[_Row]:
    for number, line in _lines(path):
        try:
            if line.strip():
                row = _parse_json(line, number)
                yield named("line", number, get_key(row, "id")), number, row
        except UnreadableError as error:
            checks.problems.append(str(error))


def _of_one_kind(rows: Iterable[_Row]) -> Iterator[tuple[str, _Row]]:
    """Yield rows with their kind; those that leave it open before any tells are taken for flat ones."""
    first: dict[str, int] = {}
    for row in rows:
        kind = _row_kind(row[2])
        if kind == "document":
            raise UnreadableError("holds a SQuAD document, not JSON Lines: rename it to .json")
        if kind:
            first.setdefault(kind, row[1])
        if len(first) == 2:
            raise UnreadableError(
                f"mixes rows with a passage (line {first['flat']}) and closed-book pairs (line {first['pair']}): split "
                "it in two"
            )
        yield "pair" if "pair" in first else "flat", row


def _row_kind(row: Any) -> str | None:
    """Tell by its keys what a row is; None where they leave it open."""
    marks = {"context": "flat", "answers": "flat", "answer": "pair", "data": "document"}
    return next((kind for key, kind in marks.items() if isinstance(row, dict) and key in row), None)


def _read_csv(path: Path, checks: Checks) -> None:
    table = csv.DictReader((line for _, line in _lines(path)), strict=True)
    try:
        _require_columns(("question", "answer"), table.fieldnames or [])
        for number, row in enumerate(table, start=1):
            where = named("row", number, row.get("id"))
            if None in row:
                checks.problems.append(f"{where}: has more cells than the header: put texts with commas in quotes")
            cells = {key: cell for key, cell in row.items() if cell is not None and (cell or key != "id")}
            _take_pair((where, number, cells), checks)
    except csv.Error as error:
        checks.problems.append(f"line {table.reader.line_num}: no valid CSV ({error}): correct its quotes")


def _read_parquet(path: Path, checks: Checks) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    needed = ("id", "context", "question", "answers")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _require_columns(needed, names)
            batches = file.iter_batches(ROWS_AT_A_TIME, columns=[*needed, *({"title"} & set(names))])
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                _take_flat((named("row", number, row["id"]), number, row), checks)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UnreadableError(f"is no complete Parquet file ({reason}): copy or export it again") from error


def _require_columns(needed: Sequence[str], names: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in names]:
        raise UnreadableError(
            f"has no column {', '.join(missing)}: it needs {', '.join(needed)} and has {', '.join(names)}"
        )


def _take_flat(row: _Row, checks: Checks) -> None:
    where, _, content = row
    record = checks.record(FlatRowRecord, content, where)
    if isinstance(content, dict):
        question = checks.question(_nested(content), where, record.context if record else None)
        if record and question:
            checks.spool.add(Passage(record.title or "", record.context, (question,)))


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """Return a flat row as a SQuAD v2.0 question."""
    texts, starts = (_items(row.get("answers"), key) for key in ("text", "answer_start"))
    answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=False)]
    return {**row, "answers": answers, "is_impossible": not answers}


def _take_pair(row: _Row, checks: Checks) -> None:
    where, number, content = row
    checks.unique(get_key(content, "id") or str(number), where)
    pair = checks.record(PairRecord, content, where)
    if pair:
        question = Question(pair.id or str(number), pair.question, (Answer(pair.answer, None),))
        checks.spool.add(Passage("", None, (question,)))


def _whole_text(path: Path) -> str:
    """Return a text file that cannot be read in parts."""
    if path.stat().st_size > LARGEST_DOCUMENT:
        raise UnreadableError(
            f"has {path.stat().st_size / 1e6:,.0f} MB, and one JSON document is read whole, up to "
            f"{LARGEST_DOCUMENT / 1e6:,.0f} MB: convert it to rows in .jsonl or .parquet, of any size"
        )
    return "".join(line for _, line in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers, from 1.

    Raises:
        UnreadableError: it is no UTF-8, or holds only whitespace.
    """
    offset, filled = 0, False
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UnreadableError(f"byte {offset + error.start} is no UTF-8: save the file as UTF-8") from None
            offset += len(line)
            text = text.removeprefix("\ufeff") if number == 1 else text
            filled = filled or bool(text.strip())
            yield number, text
    if not filled:
        raise UnreadableError("is empty: give at least one question")


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
