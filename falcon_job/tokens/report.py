"""The entry of a split in reports/data.json: counts of records, and of tokens with and without shared passages."""

from array import array
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TypedDict

import numpy as np

from falcon_job.records.passage import Passage
from falcon_job.tokens.dataset import Split
from falcon_job.tokens.examples import Tally


class TokenCounts(TypedDict):
    """Tokens of a split: the median and longest sequence, and the totals without and with shared passages."""

    median: int
    longest: int
    separate: int
    packed: int


class SplitReport(TypedDict):
    """Counts of a split: what was read, what was kept, what was dropped by reason, and tokens."""

    articles: int
    passages: int
    questions: int
    kept: int
    unanswerable: int
    windowed: int
    windows: int
    dropped: dict[str, int]
    tokens: TokenCounts


def count_questions(passages: Iterable[Passage]) -> int:
    """Return the total number of questions in all passages."""
    return sum(len(passage.questions) for passage in passages)


def describe(passages: Sequence[Passage], split: Split, tally: Tally) -> SplitReport:
    """Return the counts of a split.

    Args:
        passages: the passages that the split was made from.
        split: the split on disk.
        tally: counts from encoding the passages.
    """
    kept, unanswerable = _count_kept(split)
    return {
        "articles": len({passage.article for passage in passages}),
        "passages": len(passages),
        "questions": count_questions(passages),
        "kept": kept,
        "unanswerable": unanswerable,
        "windowed": tally.windowed_passages,
        "windows": len(split),
        "dropped": dict(sorted(tally.dropped.items())),
        "tokens": _count_tokens(split),
    }


def _count_kept(split: Split) -> tuple[int, int]:
    """Return the number of questions and of unanswerable ones. A question in several windows counts once."""
    kept = unanswerable = 0
    for _, windows in groupby(split, key=lambda row: row.passage):
        answerable = {question.id: bool(question.answers) for row in windows for question in row.questions}
        kept += len(answerable)
        unanswerable += len(answerable) - sum(answerable.values())
    return kept, unanswerable


def _count_tokens(split: Split) -> TokenCounts:
    lengths = array("i")
    packed = 0
    for row in split:
        tokens = [len(question.prompt_ids) + len(question.answer_ids) for question in row.questions]
        lengths.extend(len(row.prefix_ids) + count for count in tokens)
        packed += len(row.prefix_ids) + sum(tokens)
    ordered = np.sort(lengths)
    return {
        "median": int(ordered[len(ordered) // 2]) if lengths else 0,
        "longest": int(ordered[-1]) if lengths else 0,
        "separate": sum(lengths),
        "packed": packed,
    }
