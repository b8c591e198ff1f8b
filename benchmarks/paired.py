"""Compare the F1 scores of pairs of runs, question by question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from falcon_job.qa.metric import confidence_interval, question_scores
from falcon_job.records.dataset import read_passages

Predictions = Mapping[str, str]


def f1_difference(pairs: Sequence[tuple[Predictions, Predictions]], dev: Path) -> dict[str, float]:
    """Return by how many points F1 is higher in the first run of each pair, with the 95 % interval of that difference.

    Args:
        pairs: the predictions (question id to answer) of a run and of the run that it is compared with.
        dev: the file of questions; the interval is a paired bootstrap over its passages.
    """
    passages = list(read_passages(dev))
    golds = {q.id: [answer.text for answer in q.answers] for passage in passages for q in passage.questions}
    passage_numbers = [number for number, passage in enumerate(passages) for _ in passage.questions]
    differences = [_differences(ours, others, golds) for ours, others in pairs]
    by_question = [mean(of_one_question) for of_one_question in zip(*differences, strict=True)]
    low, high = confidence_interval(by_question, passage_numbers, seed=0)
    return {"f1_difference": 100 * mean(by_question), "f1_difference_low": low, "f1_difference_high": high}


def _differences(ours: Predictions, others: Predictions, golds: Mapping[str, Sequence[str]]) -> list[float]:
    """Return by how much F1 is higher in `ours` for each question, in the order of `golds`."""
    scores, other_scores = question_scores(ours, golds), question_scores(others, golds)
    return [scores[name].f1 - other_scores[name].f1 for name in golds]
