"""What reports/data.json says about a split: counts of records, and of tokens with and without sharing passages."""

from array import array
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TypedDict

import numpy as np

from falcon_job.records.passage import Passage
from falcon_job.tokens.dataset import Split
from falcon_job.tokens.examples import Tally


class TokenCounts(TypedDict):
    """Tokens of a split: the median and the longest sequence, and the sum of all without and with shared passages."""

    median: int
    longest: int
    separate: int
    packed: int


class SplitReport(TypedDict):
    """Counts of a split: what was read, what was kept, what was dropped for which reason, and its tokens."""

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
    """Return the number of questions of all passages."""
    return sum(len(passage.questions) for passage in passages)


def describe(passages: Sequence[Passage], split: Split, tally: Tally) -> SplitReport:
    """Return the counts of a split.

    Args:
        passages: what it was made from.
        split: what was written.
        tally: what was counted on the way from one to the other.
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
    """Return the number of questions, each counted once however many windows ask it, and of unanswerable ones."""
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
