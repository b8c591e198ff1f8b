"""The SQuAD 2.0 scores, as an `evaluate.Metric`, one question at a time, and with confidence intervals.

Exact match and token F1 as in Rajpurkar et al. 2016 (https://arxiv.org/abs/1606.05250), abstention and its
best threshold as in Rajpurkar et al. 2018 (https://arxiv.org/abs/1806.03822) and their evaluate-v2.0.py.
"""

import functools
import math
import re
import string
import tempfile
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from falcon_job.errors import InputError

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_SHOWN_IDS = 3


def normalize_answer(text: str) -> str:
    """Lower-case `text`, drop ASCII punctuation and English articles, and collapse whitespace."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def question_scores(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, tuple[float, float]]:
    """Return the exact match (0 or 1) and the token F1 (0 to 1) of each question, ordered as `references`.

    Args:
        predictions: question id to answer; "" abstains.
        references: question id to gold answers; none where the question is unanswerable.

    Raises:
        InputError: a question has no prediction, or a prediction no question.
    """
    _check_ids("predictions", predictions, references)
    return {name: _question_score(predictions[name], golds) for name, golds in references.items()}


def score(
    predictions: Mapping[str, str],
    na_prob: Mapping[str, float],
    references: Mapping[str, Sequence[str]],
    threshold: float = 1.0,
) -> dict[str, float]:
    """Return the official SQuAD 2.0 numbers under their official names.

    Args:
        predictions: question id to answer; "" abstains.
        na_prob: question id to the probability of "no answer"; above `threshold` the answer counts as "".
        references: question id to gold answers; none where the question is unanswerable.
        threshold: the highest `na_prob` at which an answer still stands.

    Returns:
        exact, f1, total; the same as HasAns_* and NoAns_* where there are such questions; best_exact, best_f1
        and their thresholds. Scores in percent, totals in questions.

    Raises:
        InputError: there are no questions, the three sets of ids differ, or a probability is not finite.
    """
    if not references:
        raise InputError("no questions to score")
    _check_ids("predictions", predictions, references)
    _check_ids("na_prob", na_prob, references)
    for name, probability in na_prob.items():
        if not math.isfinite(probability):
            raise InputError(f"na_prob of question {name!r} is {probability}: it must be a finite number")
    with tempfile.TemporaryDirectory() as folder:
        scores: dict[str, float] = squad_v2()(keep_in_memory=True, cache_dir=folder).compute(
            predictions=[
                {"id": name, "prediction_text": predictions[name], "no_answer_probability": probability}
                for name, probability in na_prob.items()
            ],
            references=[{"id": name, "answers": list(references[name])} for name in na_prob],
            no_answer_threshold=threshold,
        )
    return scores


@functools.cache
def squad_v2() -> Any:
    """Return the metric class. It is made on first use, since importing evaluate takes seconds."""
    import datasets
    import evaluate

    text = datasets.Value("string")
    probability = datasets.Value("float64")

    class SquadV2(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
        """SQuAD 2.0 as an `evaluate.Metric`; made directly, it needs neither the Hub nor the module cache."""

        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description=__doc__ or "",
                citation="https://arxiv.org/abs/1806.03822",
                inputs_description="Answers with probabilities of no answer; gold answers, by question id.",
                features=datasets.Features(
                    {
                        "predictions": {
                            "id": text,
                            "prediction_text": text,
                            "no_answer_probability": probability,
                        },
                        "references": {"id": text, "answers": [text]},
                    }
                ),
            )

        def _compute(
            self,
            predictions: list[dict[str, Any]],
            references: list[dict[str, Any]],
            no_answer_threshold: float = 1.0,
        ) -> dict[str, float]:
            return _official_scores(
                {row["id"]: row["prediction_text"] for row in predictions},
                {row["id"]: row["no_answer_probability"] for row in predictions},
                {row["id"]: row["answers"] for row in references},
                no_answer_threshold,
            )

    return SquadV2


def confidence_interval(
    scores: Mapping[str, float], passages: Mapping[str, Hashable], *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of `scores`, in percent.

    Questions of one passage are not independent, so whole passages are drawn (Field and Welsh 2007,
    "Bootstrapping clustered data", https://doi.org/10.1111/j.1467-9868.2007.00593.x). Of one passage alone
    the interval is a point.

    Args:
        scores: question id to score, 0 to 1; or to the difference of two scores, for a paired comparison.
        passages: question id to whatever names its passage; ids without a score are ignored.
        seed: of the draws; equal seeds and scores give equal intervals.
        resamples: number of draws.

    Raises:
        InputError: there are no scores, or a scored question has no passage.
    """
    if not scores:
        raise InputError("no questions to score")
    if unplaced := [name for name in scores if name not in passages]:
        raise InputError(f"{len(unplaced)} scored question(s) without a passage: {_some(unplaced)}")
    groups: dict[Hashable, list[float]] = {}
    for name, value in scores.items():
        groups.setdefault(passages[name], []).append(value)
    sums = np.array([sum(values) for values in groups.values()])
    sizes = np.array([len(values) for values in groups.values()])
    # How often each passage is drawn says all about a resample.
    draws = np.random.default_rng(seed).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
    low, high = np.percentile(100 * (draws @ sums) / (draws @ sizes), [2.5, 97.5])
    return float(low), float(high)


def _check_ids(what: str, ids: Collection[str], references: Collection[str]) -> None:
    missing = [name for name in references if name not in ids]
    extra = [name for name in ids if name not in references]
    problems = [f"{len(missing)} question(s) without: {_some(missing)}"] if missing else []
    problems += [f"{len(extra)} unknown id(s): {_some(extra)}"] if extra else []
    if problems:
        raise InputError(f"{what}: {'; '.join(problems)}; give one for every question and no other")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN_IDS])) + (", ..." if len(names) > _SHOWN_IDS else "")


def _question_score(prediction: str, golds: Sequence[str]) -> tuple[float, float]:
    """Return the best exact match and the best F1 over the gold answers that are left after normalization."""
    predicted = normalize_answer(prediction)
    normal_golds = [normal for gold in golds if (normal := normalize_answer(gold))] or [""]
    exact = max(float(predicted == gold) for gold in normal_golds)
    return exact, max(token_f1(predicted.split(), gold.split()) for gold in normal_golds)


def token_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall (0 to 1) of two bags of normalized tokens."""
    if not predicted or not gold:
        return float(not predicted and not gold)
    same = (Counter(predicted) & Counter(gold)).total()
    if not same:
        return 0.0
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def _official_scores(
    predictions: Mapping[str, str],
    na_prob: Mapping[str, float],
    references: Mapping[str, Sequence[str]],
    threshold: float,
) -> dict[str, float]:
    scores = question_scores(predictions, references)
    answerable = {name: bool(golds) for name, golds in references.items()}
    decided = {
        name: (float(not answerable[name]),) * 2 if na_prob[name] > threshold else pair for name, pair in scores.items()
    }
    numbers = _means(list(decided.values()))
    for prefix, group in (("HasAns", True), ("NoAns", False)):
        members = [pair for name, pair in decided.items() if answerable[name] is group]
        if members:
            numbers |= {f"{prefix}_{key}": value for key, value in _means(members).items()}
    for index, key in enumerate(("exact", "f1")):
        gains = [
            scores[name][index] if answerable[name] else -float(predictions[name] != "")
            for name in sorted(na_prob, key=na_prob.__getitem__)
        ]
        best, count = _best_prefix(len(answerable) - sum(answerable.values()), gains)
        numbers[f"best_{key}"] = 100 * best / len(scores)
        numbers[f"best_{key}_thresh"] = sorted(na_prob.values())[count - 1] if count else 0.0
    return numbers


def _means(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    total = len(pairs)
    exact, f1 = (100 * sum(column) / total for column in zip(*pairs, strict=True))
    return {"exact": exact, "f1": f1, "total": total}


def _best_prefix(start: float, gains: Sequence[float]) -> tuple[float, int]:
    """Return the highest of the running sums from `start`, and after how many gains it is first reached."""
    sums = np.cumsum([start, *gains])
    count = int(np.argmax(sums))
    return float(sums[count]), count
