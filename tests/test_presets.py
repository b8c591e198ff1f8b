from pathlib import Path

import pytest

from falcon_job.machine import Machine
from falcon_job.params import load_params

PRESETS = sorted((Path(__file__).parents[1] / "presets").glob("*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_complete_and_has_a_first_line(path):
    load_params(path)

    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_dropout_is_zero_in_every_preset_but_the_original_recipe(path):
    assert load_params(path).lora.dropout == (0.05 if path.stem == "seed" else 0)


def test_the_seed_preset_holds_the_original_recipe(tmp_path):
    from falcon_job.training.trainer import training_arguments

    params = load_params(PRESETS[0].with_name("seed.yaml"))
    lora, train = params.lora, params.train

    assert (params.model.source, params.model.precision, params.prompt.template) == ("tiiuae/falcon-7b", "fp16", "seed")
    assert (lora.r, lora.alpha, lora.dropout, lora.target_modules) == (16, 32, 0.05, ["query_key_value"])
    assert (train.epochs, train.learning_rate, train.scheduler, train.warmup_ratio) == (3, 2e-4, "cosine", 0.05)
    assert (train.questions_per_step, train.logging_steps, train.save_total_limit) == (4, 25, 4)
    assert train.optimizer == "paged_adamw_8bit"
    bf16 = params.model_copy(update={"model": params.model.model_copy(update={"precision": "bf16"})})
    arguments = training_arguments(bf16, Machine(), steps_per_epoch=100, validate=True, folder=tmp_path)
    assert (arguments.optim, arguments.warmup_steps, arguments.save_strategy) == ("paged_adamw_8bit", 15, "epoch")
    assert arguments.lr_scheduler_type == "cosine"
