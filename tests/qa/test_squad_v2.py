"""The metric as users of Hugging Face's `evaluate` load it: from the path of its file, without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from falcon_job.qa.metric import official_scores
from falcon_job.qa.squad_v2 import SquadV2

ROOT = Path(__file__).parents[2]
PREDICTIONS = {"right": "the cat", "wrong": "dog", "close": "red cat", "silent": ""}
NA_PROB = {"right": 0.1, "wrong": 0.2, "close": 0.3000001, "silent": 0.9}  # 0.3 in single precision
GOLDS = {"right": ["cat", "kitten"], "wrong": [], "close": ["cat"], "silent": []}


def rows() -> dict[str, list[dict[str, Any]]]:
    return {
        "predictions": [
            {"id": name, "prediction_text": text, "no_answer_probability": NA_PROB[name]}
            for name, text in PREDICTIONS.items()
        ],
        "references": [
            {"id": name, "answers": {"text": golds, "answer_start": [0] * len(golds)}} for name, golds in GOLDS.items()
        ],
    }


@pytest.mark.parametrize("threshold", [1.0, 0.3])
def test_the_class_gives_the_numbers_of_the_plain_functions(tmp_path: Path, threshold: float) -> None:
    metric = SquadV2(keep_in_memory=True, cache_dir=str(tmp_path))
    found = metric.compute(**rows(), no_answer_threshold=threshold)
    assert found == official_scores(PREDICTIONS, NA_PROB, GOLDS, threshold)


def test_evaluate_loads_the_file_by_its_path_and_opens_no_socket(tmp_path: Path) -> None:
    code = """
import json, sys

def refuse(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        raise AssertionError(event)

sys.addaudithook(refuse)
import evaluate
metric = evaluate.load("falcon_job/qa/squad_v2.py")
print(json.dumps(metric.compute(**json.loads(sys.argv[1]))))
"""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(rows())],
        env={**kept, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == official_scores(PREDICTIONS, NA_PROB, GOLDS)
