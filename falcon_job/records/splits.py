"""Split passages into train and validation, and limit their number. Passages and articles are never cut."""

import random
import sys
from collections.abc import Sequence

from falcon_job.errors import InputError
from falcon_job.records.passage import Passage
from falcon_job.records.store import Selection

MIN_ARTICLES = 10
"""With fewer articles, a split by article would be too coarse, so the split is by passage."""


def split_validation(
    passages: Sequence[Passage], fraction: float, seed: int
) -> tuple[Sequence[Passage], Sequence[Passage]]:
    """Split passages into train and validation, by article if there are at least `MIN_ARTICLES`, else by passage.

    At least one article or passage is held out if `fraction` is above 0. Both parts keep the order of the file.

    Raises:
        InputError: there is only one passage.
    """
    if fraction == 0:
        return passages, []
    article_of = [sys.intern(passage.article) for passage in passages]
    articles = list(dict.fromkeys(article_of))
    by_article = len(articles) >= MIN_ARTICLES
    groups: Sequence[object] = articles if by_article else range(len(passages))
    if len(groups) < 2:
        raise InputError(
            "has only one passage, which cannot be split into train and validation",
            place="dataset.train",
            fix="set preprocess.validation_fraction to 0, raise preprocess.limit, or add passages",
        )
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    held_out = set(random.Random(seed).sample(groups, count))
    is_held_out = [(article if by_article else i) in held_out for i, article in enumerate(article_of)]
    train, validation = (
        Selection(passages, [i for i, held in enumerate(is_held_out) if held is side]) for side in (False, True)
    )
    return train, validation


def take_passages(passages: Sequence[Passage], limit: int | None, seed: int) -> Sequence[Passage]:
    """Return whole passages with at most `limit` questions in total, but at least one passage.

    Passages are drawn with the seed, and keep the order of the file. If `limit` is None, all are returned.
    """
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
    """Return the indices of at least one passage, spread evenly over a file, with at most `limit` questions in total.

    Passages are visited in order. One is taken if the questions taken, its own included, are at most the fraction
    `limit` / total of those visited. For example, of ten passages with one question each, a limit of 5 takes every
    second one.

    Args:
        question_counts: the number of questions of each passage.
        limit: the most questions; None returns all passages.
    """
    if limit is None:
        return list(range(len(question_counts)))
    all_questions = sum(question_counts)
    chosen: list[int] = []
    passed = total = 0
    for i, count in enumerate(question_counts):
        passed += count
        if (total + count) * all_questions <= limit * passed:
            chosen.append(i)
            total += count
    return chosen or [min(range(len(question_counts)), key=question_counts.__getitem__)]
