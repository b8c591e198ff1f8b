"""Which passages train, which validate, which are left out: whole groups, drawn by a seed."""

import random
import sys
from collections.abc import Sequence

from falcon_job.errors import InputError
from falcon_job.records.passage import Passage
from falcon_job.records.store import Selection

MIN_ARTICLES = 10
"""Below this many articles a split by article would leave too few, and passages are split instead."""


def split_validation(
    passages: Sequence[Passage], fraction: float, seed: int
) -> tuple[Sequence[Passage], Sequence[Passage]]:
    """Split into train and validation by article where there are enough, else by passage.

    At least one group is held out when `fraction` is above 0. Both parts keep the order of the file.

    Raises:
        InputError: there is only one group.
    """
    if fraction == 0:
        return passages, []
    article_of = [sys.intern(passage.article) for passage in passages]
    articles = list(dict.fromkeys(article_of))
    by_article = len(articles) >= MIN_ARTICLES
    groups: Sequence[object] = articles if by_article else range(len(passages))
    if len(groups) < 2:
        raise InputError(
            "dataset.train has a single passage to train on: set preprocess.validation_fraction to 0, or add passages "
            "(or raise preprocess.limit)"
        )
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    held_out = set(random.Random(seed).sample(groups, count))
    belongs = [(article if by_article else i) in held_out for i, article in enumerate(article_of)]
    train, validation = (
        Selection(passages, [i for i, held in enumerate(belongs) if held is side]) for side in (False, True)
    )
    return train, validation


def take_passages(passages: Sequence[Passage], limit: int | None, seed: int) -> Sequence[Passage]:
    """Return whole passages with at most `limit` questions (at least one passage), seeded, in file order."""
    if limit is None:
        return passages
    counts = [len(passage.questions) for passage in passages]
    order = random.Random(seed).sample(range(len(passages)), len(passages))
    chosen: list[int] = []
    total = 0
    for i in order:
        count = counts[i]
        if not chosen or total + count <= limit:
            chosen.append(i)
            total += count
    return Selection(passages, sorted(chosen))


def spread(question_counts: Sequence[int], limit: int | None) -> list[int]:
    """Return numbers of passages spread evenly over a file, with at most `limit` questions (at least one passage)."""
    if limit is None:
        return list(range(len(question_counts)))
    every = sum(question_counts)
    chosen: list[int] = []
    passed = total = 0
    for i, count in enumerate(question_counts):
        passed += count
        if (total + count) * every <= limit * passed:  # the share taken so far stays at or below the whole's
            chosen.append(i)
            total += count
    return chosen or [min(range(len(question_counts)), key=question_counts.__getitem__)]
