"""Rows of any file format: flat rows, which repeat the passage for each question, and closed-book pairs.

Flat rows are described at https://huggingface.co/datasets/rajpurkar/squad_v2.
"""

from collections.abc import Iterator
from typing import Any

from falcon_job.errors import Problem
from falcon_job.records.passage import Answer, Passage, Question
from falcon_job.records.readers.text import get_key, get_list
from falcon_job.records.schema import FlatRowRecord, PairRecord, validated, validated_question


def read_flat_row(row: Any, place: str) -> Iterator[Passage | Problem]:
    """Yield a flat row as a passage with one question, or its problems.

    A row is {"id", "context", "question", "answers": {"text": [...], "answer_start": [...]}}, with or without "title".
    Empty lists of answers mark an unanswerable question.
    """
    record, problems = validated(FlatRowRecord, row, place)
    yield from problems
    if not isinstance(row, dict):
        return
    question, problems = validated_question(_squad_question(row), place, record.context if record else None)
    yield from problems
    if record and question:
        yield Passage(record.title or "", record.context, (question,))


def read_pair(row: Any, place: str, number: int) -> Iterator[Passage | Problem]:
    """Yield a pair as a closed-book question, or its problems.

    A row is {"question", "answer"}, with or without "id". Without one, the row number is the id.
    """
    pair, problems = validated(PairRecord, row, place)
    yield from problems
    if pair:
        question = Question(pair.id or str(number), pair.question, (Answer(pair.answer, None),), place)
        yield Passage("", None, (question,))


def _squad_question(row: dict[str, Any]) -> dict[str, Any]:
    """Return the question of a flat row in the shape of SQuAD v2.0."""
    answers = get_key(row, "answers")
    texts, starts = get_list(answers, "text"), get_list(answers, "answer_start")
    paired = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=False)]
    return {**row, "answers": paired, "is_impossible": not paired}
