"""SQuAD v1.1 and v2.0: one JSON document of articles, paragraphs and questions.

The format is described at https://rajpurkar.github.io/SQuAD-explorer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from falcon_job.errors import Problem
from falcon_job.records.passage import Passage
from falcon_job.records.readers.text import UnreadableError, get_key, get_list, parse_json, place_of, read_lines
from falcon_job.records.schema import ArticleRecord, ParagraphRecord, validated, validated_question

LARGEST_DOCUMENT = 128_000_000
"""The most bytes of a JSON document, which is read into memory whole: three times the size of SQuAD 2.0."""


def read(path: Path) -> Iterator[Passage | Problem]:
    """Yield a passage for each paragraph that has questions, and the problems.

    Raises:
        UnreadableError: it is too large, not UTF-8, not JSON or not a SQuAD document.
    """
    for number, article in enumerate(_articles(_document(path))):
        yield from _read_article(article, number)


def _document(path: Path) -> str:
    size = path.stat().st_size
    if size > LARGEST_DOCUMENT:
        raise UnreadableError(
            f"has {size / 1e6:,.0f} MB, but a JSON document is read into memory whole and may have at most "
            f"{LARGEST_DOCUMENT / 1e6:,.0f} MB",
            "convert it to .jsonl or .parquet rows, which may have any size",
        )
    return "".join(line for _, line in read_lines(path))


def _articles(text: str) -> list[Any]:
    try:
        articles = get_key(parse_json(text), "data")
        if isinstance(articles, list):
            return articles
        raise UnreadableError("is not a SQuAD document", 'write an object with "data", a list of articles')
    except UnreadableError:
        if _starts_with_row(text):
            raise UnreadableError("is JSON Lines, not a SQuAD document", "rename it to .jsonl") from None
        raise


def _starts_with_row(text: str) -> bool:
    try:
        row = parse_json(text.lstrip().split("\n", 1)[0])
    except UnreadableError:
        return False
    return get_key(row, "question") is not None


def _read_article(article: Any, number: int) -> Iterator[Passage | Problem]:
    place = place_of("article", number, get_key(article, "title"))
    record, problems = validated(ArticleRecord, article, place)
    yield from problems
    for index, paragraph in enumerate(get_list(article, "paragraphs")):
        yield from _read_paragraph(paragraph, f"{place}, paragraph {index}", record.title if record else "")


def _read_paragraph(paragraph: Any, place: str, title: str) -> Iterator[Passage | Problem]:
    record, problems = validated(ParagraphRecord, paragraph, place)
    yield from problems
    questions = []
    for index, content in enumerate(get_list(paragraph, "qas")):
        question_place = f"{place}, {place_of('question', index, get_key(content, 'id'))}"
        question, problems = validated_question(content, question_place, record.context if record else None)
        yield from problems
        if question:
            questions.append(question)
    if record and questions:
        yield Passage(title, record.context, tuple(questions))
