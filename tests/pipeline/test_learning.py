"""The demo learns to answer its questions, because its model is pretrained."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

pytestmark = pytest.mark.pipeline

SHORT = {
    "preprocess__limit": 480,
    "train__epochs": 2,
    "train__questions_per_step": 12,
    "evaluate__limit": 60,
}
"""A few seconds of training: enough to learn."""


def scores(clone, report: str) -> dict[str, float]:
    return json.loads(clone.read(f"reports/{report}.json"))


def write_random_twin(model, folder) -> None:
    """Copy the model to `folder`, with random weights."""
    shutil.copytree(model, folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)).bfloat16().save_pretrained(folder)


def test_a_short_run_teaches_falcon_tiny_but_not_a_random_twin_of_it(pristine_clone):
    pristine_clone.set_params(**SHORT)
    pristine_clone.job("run", "baseline")
    pristine_clone.job("run", "evaluate")
    untuned, tuned = scores(pristine_clone, "baseline"), scores(pristine_clone, "eval")
    assert untuned["f1"] < 30
    assert tuned["has_ans_f1"] > 60
    assert tuned["no_ans_f1"] > 50
    assert tuned["f1"] > tuned["always_abstain_f1"] + 20

    write_random_twin(pristine_clone.root / "data" / "falcon-tiny", pristine_clone.root / "scratch" / "random")
    pristine_clone.set_params(model__source="scratch/random")
    pristine_clone.job("run", "evaluate")
    random = scores(pristine_clone, "eval")
    assert random["has_ans_f1"] < 10
    assert random["f1"] < random["always_abstain_f1"] + 5
