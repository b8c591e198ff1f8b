"""SQuAD 2.0 scores. Each answer is scored once, and all numbers and tables are computed from those scores.

Exact match and token F1 follow Rajpurkar et al. 2016 (https://arxiv.org/abs/1606.05250). Abstention and its best
threshold follow Rajpurkar et al. 2018 (https://arxiv.org/abs/1806.03822) and their script, evaluate-v2.0.py.
`squad_v2.py` offers the same numbers as an `evaluate` module.

    scores = [score_answer("the bridge", ["bridge", "old bridge"]), score_answer("", [])]
    means(scores)   # {"exact": 100.0, "f1": 100.0, "total": 2}
"""

import math
import re
import string
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from falcon_job.errors import InputError

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_SHOWN_IDS = 3


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """The scores of one answer to one question.

    Attributes:
        exact: 1 if the answer equals a gold answer after normalization, else 0.
        f1: best token F1 against a gold answer, 0 to 1.
        answered: False if the answer is "", which abstains.
        answerable: whether the question has gold answers.
    """

    exact: float
    f1: float
    answered: bool
    answerable: bool


def normalize_answer(text: str) -> str:
    """Lower-case `text`, drop ASCII punctuation and English articles, and collapse whitespace."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def token_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall (0 to 1) of two bags of normalized tokens."""
    if not predicted or not gold:
        return float(not predicted and not gold)
    same = (Counter(predicted) & Counter(gold)).total()
    if not same:
        return 0.0
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def score_answer(answer: str, golds: Sequence[str]) -> AnswerScore:
    """Score one answer.

    Gold answers that normalization leaves empty are skipped. If none is left, only an empty answer is right.

    Args:
        answer: "" abstains.
        golds: accepted answers; empty if the question is unanswerable.
    """
    predicted = normalize_answer(answer)
    normal_golds = [normal for gold in golds if (normal := normalize_answer(gold))] or [""]
    return AnswerScore(
        exact=max(float(predicted == gold) for gold in normal_golds),
        f1=max(token_f1(predicted.split(), gold.split()) for gold in normal_golds),
        answered=answer != "",
        answerable=bool(golds),
    )


def question_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, AnswerScore]:
    """Score the answer to each question, in the order of `references`.

    Args:
        predictions: question id to answer; "" abstains.
        references: question id to gold answers, which are empty if the question is unanswerable.

    Raises:
        InputError: a question has no prediction, or a prediction has no question.
    """
    _check_ids("predictions", predictions, references)
    return {name: score_answer(predictions[name], golds) for name, golds in references.items()}


def means(scores: Sequence[AnswerScore]) -> dict[str, float]:
    """Return `exact` and `f1` in percent, and `total`, the number of questions.

    Raises:
        InputError: there are no scores.
    """
    _check_not_empty(scores)
    total = len(scores)
    return {
        "exact": 100 * sum(score.exact for score in scores) / total,
        "f1": 100 * sum(score.f1 for score in scores) / total,
        "total": total,
    }


def group_means(scores: Sequence[AnswerScore], has_answer: str, no_answer: str) -> dict[str, float]:
    """Return the `means` of answerable and of unanswerable questions; a group without questions is left out.

    Args:
        scores: of all questions.
        has_answer: prefix of the names for answerable questions: "HasAns" gives HasAns_exact.
        no_answer: prefix of the names for unanswerable questions.
    """
    numbers: dict[str, float] = {}
    for prefix, answerable in ((has_answer, True), (no_answer, False)):
        if members := [score for score in scores if score.answerable is answerable]:
            numbers |= {f"{prefix}_{name}": value for name, value in means(members).items()}
    return numbers


def best_thresholds(scores: Sequence[AnswerScore], na_probs: Sequence[float]) -> dict[str, float]:
    """Return the best exact match and F1 that a threshold on the probability of "no answer" can reach.

    This is the sweep of the official script. It starts by abstaining on every question, which is right for the
    unanswerable ones. Then it accepts the answers one by one, the lowest probability first. An answer adds its score if
    its question is answerable, and subtracts 1 if it is not. For example, three answerable questions score 1, 0 and 1,
    and an unanswerable one is accepted third:

        questions right   1 -> 2 -> 2 -> 1 -> 2      the best is 2 of 4, first reached after one answer

    Args:
        scores: one score per question.
        na_probs: the probability of "no answer" for each question, in the same order.

    Returns:
        best_exact and best_f1 in percent; best_exact_thresh and best_f1_thresh, the highest probability accepted (0 if
        it is best to abstain on all questions).

    Raises:
        InputError: there are no scores.
    """
    _check_not_empty(scores)
    order = sorted(range(len(scores)), key=na_probs.__getitem__)
    unanswerable = sum(not score.answerable for score in scores)
    numbers: dict[str, float] = {}
    for name, values in (("exact", [s.exact for s in scores]), ("f1", [s.f1 for s in scores])):
        gains = [values[i] if scores[i].answerable else -float(scores[i].answered) for i in order]
        right = np.cumsum([unanswerable, *gains])
        count = int(np.argmax(right))
        numbers[f"best_{name}"] = 100 * float(right[count]) / len(scores)
        numbers[f"best_{name}_thresh"] = na_probs[order[count - 1]] if count else 0.0
    return numbers


def official_scores(
    predictions: Mapping[str, str],
    na_probs: Mapping[str, float],
    references: Mapping[str, Sequence[str]],
    threshold: float = 1.0,
) -> dict[str, float]:
    """Return the official SQuAD 2.0 numbers under their official names.

    Args:
        predictions: question id to answer; "" abstains.
        na_probs: question id to the probability of "no answer"; above `threshold`, the answer counts as "".
        references: question id to gold answers, which are empty if the question is unanswerable.
        threshold: the highest probability at which an answer still counts.

    Returns:
        exact, f1 and total for all questions; the same as HasAns_* and NoAns_* for answerable and unanswerable
        questions, if there are any; best_exact, best_f1 and their thresholds. Scores are in percent.

    Raises:
        InputError: there are no questions, the three sets of ids differ, or a probability is not finite.
    """
    _check_ids("na_prob", na_probs, references)
    for name, probability in na_probs.items():
        if not math.isfinite(probability):
            raise InputError(f"is {probability}", place=f"na_prob of question {name!r}", fix="give a finite number")
    scores = question_scores(predictions, references)
    decided = [_abstain(score) if na_probs[name] > threshold else score for name, score in scores.items()]
    return (
        means(decided)
        | group_means(decided, "HasAns", "NoAns")
        | best_thresholds([scores[name] for name in na_probs], list(na_probs.values()))
    )


def _abstain(score: AnswerScore) -> AnswerScore:
    """Return the score of abstaining instead: 1 if the question is unanswerable."""
    right = float(not score.answerable)
    return AnswerScore(exact=right, f1=right, answered=False, answerable=score.answerable)


def confidence_interval(
    values: Sequence[float], passages: Sequence[Hashable], *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of `values`, in percent.

    Questions about one passage are not independent, so whole passages are resampled (Field and Welsh 2007,
    "Bootstrapping clustered data", https://doi.org/10.1111/j.1467-9868.2007.00593.x). If there is only one passage,
    the interval is a point.

    Args:
        values: one score per question, 0 to 1; for a paired comparison, one difference of two scores per question.
        passages: the passage of each question, as any key.
        seed: seed of the resampling; equal seeds and values give equal intervals.
        resamples: number of bootstrap samples.

    Raises:
        InputError: there are no values.
    """
    _check_not_empty(values)
    by_passage: dict[Hashable, list[float]] = {}
    for value, passage in zip(values, passages, strict=True):
        by_passage.setdefault(passage, []).append(value)
    sums = np.array([sum(group) for group in by_passage.values()])
    sizes = np.array([len(group) for group in by_passage.values()])
    # Only how often each passage is drawn matters, so a sample is one multinomial draw.
    equal_chances = np.full(len(sums), 1 / len(sums))
    draws = np.random.default_rng(seed).multinomial(len(sums), equal_chances, size=resamples)
    low, high = np.percentile(100 * (draws @ sums) / (draws @ sizes), [2.5, 97.5])
    return float(low), float(high)


def _check_not_empty(values: Sequence[object]) -> None:
    if not values:
        raise InputError("There are no questions to score", fix="add at least one")


def _check_ids(what: str, ids: Collection[str], references: Collection[str]) -> None:
    missing = [name for name in references if name not in ids]
    unknown = [name for name in ids if name not in references]
    differences = [f"{len(missing)} missing: {_first_ids(missing)}"] if missing else []
    differences += [f"{len(unknown)} unknown: {_first_ids(unknown)}"] if unknown else []
    if differences:
        raise InputError(
            f"must have one value per question ({'; '.join(differences)})",
            place=what,
            fix="add the missing ids, and remove the unknown ones",
        )


def _first_ids(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN_IDS])) + (", ..." if len(names) > _SHOWN_IDS else "")
