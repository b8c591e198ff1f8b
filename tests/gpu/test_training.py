"""The train stage on a GPU, on a tiny Falcon whose heads are large enough for FlexAttention."""

import csv

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from falcon_job.machine import Machine
from falcon_job.model.adapter import add_adapter
from falcon_job.model.loading import load_base
from falcon_job.packing import Packer
from falcon_job.params import load_params
from falcon_job.stages.train import train
from falcon_job.tokens.dataset import Split
from falcon_job.training.divergence import check_divergence
from falcon_job.training.trainer import PackedTrainer
from tests.tiny_models import falcon_7b_type
from tests.training.conftest import make_workspace, write_params

LEARNING = {"train": {"epochs": 6, "learning_rate": 0.02}}


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path, falcon_7b_type(hidden_size=128).to(torch.bfloat16))


def run(workspace, **changes):
    write_params(workspace, **changes)
    train(load_params(workspace.params), Machine(), workspace)
    with (workspace.reports / "history.csv").open(encoding="utf-8") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "fp8", "nf4"])
def test_every_precision_passes_the_self_check_and_lowers_the_loss(workspace, caplog, precision):
    caplog.set_level("INFO")
    losses = run(workspace, model={"precision": precision}, **LEARNING)

    assert "attention flex, packs of at most 8192 tokens, compiled layers on" in caplog.text
    assert sum(losses[-4:]) / 4 < 0.9 * losses[0]


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_dora_trains_too(workspace, precision):
    losses = run(workspace, model={"precision": precision}, lora={"use_dora": True}, **LEARNING)

    assert sum(losses[-4:]) / 4 < 0.9 * losses[0]


def test_equal_runs_give_equal_bits(workspace):
    def adapter():
        losses = run(workspace, model={"precision": "bf16"})
        return losses, load_file(workspace.adapter / "adapter_model.safetensors")

    (losses, first), (again, second) = adapter(), adapter()

    assert losses == again
    assert all(torch.equal(first[name], second[name]) for name in first)


class Strict(TrainerCallback):
    """Makes every wait for the GPU an error, from the third step to the last but one."""

    def __init__(self):
        self.steps = 0

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 2:
            torch.cuda.set_sync_debug_mode("error")

    def on_step_end(self, args, state, control, **_):
        self.steps += torch.cuda.get_sync_debug_mode() == 2
        if state.global_step == state.max_steps - 1:
            torch.cuda.set_sync_debug_mode("default")


def test_steps_that_log_nothing_wait_for_the_gpu_nowhere(workspace, monkeypatch):
    strict = Strict()
    original = PackedTrainer.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(strict)

    monkeypatch.setattr(PackedTrainer, "__init__", init)
    try:
        run(
            workspace,
            model={"precision": "bf16"},
            train={"epochs": 1, "questions_per_step": 4, "logging_steps": 1000, "optimizer": "adamw_torch_fused"},
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert strict.steps >= 4


def test_the_bf16_reference_passes_through_the_gpu_module_by_module(tmp_path):
    deep = falcon_7b_type(hidden_size=256, num_hidden_layers=24).to(torch.bfloat16)
    workspace = make_workspace(tmp_path, deep)
    split = Split(workspace.dataset / "train.arrow")
    pack = Packer.dense(256).make_packs([split[0].tree()])[0]
    base = load_base(workspace.path("base"), "nf4", torch.device("cuda"))
    model = add_adapter(base, load_params(workspace.params).lora, seed=0)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = check_divergence(model, workspace.path("base"), pack, "nf4")

    assert 0 < found["kl"] < 5
    weights = sum(p.numel() * p.element_size() for p in deep.parameters())
    assert torch.cuda.max_memory_allocated() - before < weights / 2
