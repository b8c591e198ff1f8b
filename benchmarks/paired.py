"""Compare the F1 of runs question by question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from falcon_job.qa.metric import confidence_interval, question_scores
from falcon_job.records.dataset import read_passages

Predictions = Mapping[str, str]


def f1_difference(pairs: Sequence[tuple[Predictions, Predictions]], dev: Path) -> dict[str, float]:
    """Return by how many points F1 is higher in the first run of each pair, with the 95 % interval of the difference.

    Args:
        pairs: the predictions of a run and of the run to compare it with, each by question id.
        dev: the file of questions; the interval is a paired bootstrap over its passages.
    """
    passages = list(read_passages(dev))
    golds = {q.id: [answer.text for answer in q.answers] for passage in passages for q in passage.questions}
    places = {q.id: number for number, passage in enumerate(passages) for q in passage.questions}
    differences = [_differences(ours, others, golds) for ours, others in pairs]
    paired = {name: mean(each[name] for each in differences) for name in golds}
    low, high = confidence_interval(paired, places, seed=0)
    return {"f1_difference": 100 * mean(paired.values()), "f1_difference_low": low, "f1_difference_high": high}


def _differences(ours: Predictions, others: Predictions, golds: Mapping[str, Sequence[str]]) -> dict[str, float]:
    ours_scored, others_scored = question_scores(ours, golds), question_scores(others, golds)
    return {name: ours_scored[name][1] - others_scored[name][1] for name in golds}
