"""The SQuAD 2.0 metric as a module of Hugging Face's `evaluate` library, for use outside the job.

It takes the inputs of `evaluate.load("squad_v2")` and returns the same numbers, and it needs no network:

    import evaluate

    metric = evaluate.load("falcon_job/qa/squad_v2.py")
    metric.compute(
        predictions=[{"id": "1", "prediction_text": "the bridge", "no_answer_probability": 0.1}],
        references=[{"id": "1", "answers": {"text": ["bridge"], "answer_start": [4]}}],
    )   # {"exact": 100.0, "f1": 100.0, "total": 1, ...}

The job itself calls `falcon_job.qa.metric`, since importing `evaluate` takes seconds. `evaluate` reads the imports of
this file with a regular expression, so each import has a line of its own.
"""

from typing import Any

import datasets
import evaluate

from falcon_job.qa.metric import official_scores


class SquadV2(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Exact match and F1 of SQuAD 2.0, with abstention; see `falcon_job.qa.metric.official_scores`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        answers = {"text": [text], "answer_start": [datasets.Value("int32")]}
        prediction = {
            "id": text,
            "prediction_text": text,
            "no_answer_probability": datasets.Value("float64"),
        }
        return evaluate.MetricInfo(
            description="Exact match and token F1 of SQuAD 2.0, with abstention.",
            citation="https://arxiv.org/abs/1806.03822",
            inputs_description="Answers with probabilities of no answer, and gold answers, matched by question id.",
            features=datasets.Features({"predictions": prediction, "references": {"id": text, "answers": answers}}),
        )

    def _compute(
        self,
        predictions: list[dict[str, Any]],
        references: list[dict[str, Any]],
        no_answer_threshold: float = 1.0,
    ) -> dict[str, float]:
        return official_scores(
            {row["id"]: row["prediction_text"] for row in predictions},
            {row["id"]: row["no_answer_probability"] for row in predictions},
            {row["id"]: row["answers"]["text"] for row in references},
            no_answer_threshold,
        )
