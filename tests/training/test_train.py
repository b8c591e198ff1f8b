"""What the train stage computes, writes and refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import MistralConfig, MistralForCausalLM, TrainingArguments

from falcon_job.errors import InputError, JobError, MachineError
from falcon_job.machine import Machine
from falcon_job.packing import Packer
from falcon_job.params import load_params
from falcon_job.sources.base_model import pin
from falcon_job.tokens.dataset import Split, write_split
from falcon_job.training.steps import StepDataset
from tests.tiny_models import VOCABULARY
from tests.training.runs import adapter_bytes, losses, run

TINY_MISTRAL = MistralConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    sliding_window=8,
)


def test_training_lowers_the_loss_and_leaves_adapter_history_and_report(workspace):
    history = run(workspace, train={"epochs": 8, "learning_rate": 0.02})
    report = json.loads((workspace.reports / "train.json").read_text(encoding="utf-8"))

    assert sum(losses(history)[-8:]) / 8 < 0.9 * losses(history)[0]
    assert {file.name for file in workspace.adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert report["loss"] == losses(history)[-1]
    assert report["validation_loss"] == losses(history, "validation_loss")[-1]
    assert report["questions"] == sum(Split(workspace.dataset / "train.arrow").branch_counts)
    assert report["steps"] == len(history)
    assert set(report["speed"]) >= {
        "questions_per_second",
        "logical_tokens_per_second",
        "executed_tokens_per_second",
        "supervised_tokens",
        "peak_memory_gb",
    }
    assert not list(workspace.checkpoints.glob("*/checkpoint-*"))


def test_pack_size_changes_neither_losses_nor_adapter_beyond_rounding(workspace):
    write = {"preprocess": {"max_tokens": 32}, "train": {"epochs": 2, "learning_rate": 0.002}}
    small = run(workspace, Machine(tokens_per_pack=32), **write)
    small_adapter = load_file(workspace.adapter / "adapter_model.safetensors")
    large = run(workspace, Machine(tokens_per_pack=4096), **write)
    large_adapter = load_file(workspace.adapter / "adapter_model.safetensors")

    assert losses(small) == pytest.approx(losses(large), rel=1e-5)
    assert losses(small, "validation_loss") == pytest.approx(losses(large, "validation_loss"), rel=1e-5)
    for name, tensor in small_adapter.items():
        torch.testing.assert_close(tensor, large_adapter[name], rtol=0, atol=1e-3 * float(tensor.abs().max()))


def test_the_loss_of_a_step_weighs_every_completion_token_alike(workspace):
    """The oracle is the model's own mean loss over all answer tokens of the step."""
    from falcon_job.model.adapter import add_adapter
    from falcon_job.model.loading import load_base

    params = load_params(workspace.params)
    first = losses(run(workspace))[0]
    model = add_adapter(load_base(workspace.path("base"), "fp32", torch.device("cpu")), params.lora, params.train.seed)
    steps = StepDataset(Split(workspace.dataset / "train.arrow"), 6, Packer.dense(512), params.train.seed)
    token_losses = []
    for tree in steps.trees(0):
        for branch in tree.branches:
            ids = torch.tensor([[*tree.prefix_ids, *branch.prompt_ids, *branch.completion_ids]])
            log_probabilities = model(input_ids=ids).logits[0].log_softmax(-1)
            start = ids.shape[1] - len(branch.completion_ids)
            token_losses += [-log_probabilities[start + i - 1, t].item() for i, t in enumerate(branch.completion_ids)]

    assert first == pytest.approx(sum(token_losses) / len(token_losses), rel=1e-5)


def test_the_output_head_is_computed_at_answer_tokens_alone(workspace, monkeypatch):
    seen = []
    original = torch.nn.Linear.forward

    def forward(self, value):
        if self.out_features == 97:
            seen.append(value.shape[1])
        return original(self, value)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    run(workspace, train={"epochs": 1})
    report = json.loads((workspace.reports / "train.json").read_text(encoding="utf-8"))

    assert max(seen) < 60  # answer tokens of six questions, not the slots of a pack
    assert sum(seen) < 3 * report["speed"]["supervised_tokens"]


def test_the_seed_decides_the_adapter_whatever_was_drawn_before(workspace):
    run(workspace)
    first = adapter_bytes(workspace)
    torch.rand(1000)
    run(workspace)
    again = adapter_bytes(workspace)
    run(workspace, train={"seed": 1})

    assert again == first
    assert adapter_bytes(workspace)["adapter_model.safetensors"] != first["adapter_model.safetensors"]


def test_validation_comes_at_each_epochs_end_and_at_the_interval_besides(workspace):
    by_epoch = [row["step"] for row in run(workspace, train={"logging_steps": 100}) if row["validation_loss"]]
    both = [
        row["step"] for row in run(workspace, train={"logging_steps": 100, "eval_steps": 3}) if row["validation_loss"]
    ]
    last = int(by_epoch[-1])

    assert [int(step) for step in by_epoch] == [last // 2, last]
    assert [int(step) for step in both] == sorted({*range(3, last + 1, 3), last // 2, last})


def test_every_epoch_is_planned_anew(workspace, monkeypatch):
    planned = []
    original = StepDataset.set_epoch

    def set_epoch(self, epoch):
        if self._seed is not None:
            planned.append(epoch)
        original(self, epoch)

    monkeypatch.setattr(StepDataset, "set_epoch", set_epoch)
    run(workspace, train={"epochs": 3})

    assert sorted(set(planned)) == [0, 1, 2]


def test_a_machine_with_several_gpus_still_has_one_step_a_batch(tmp_path, monkeypatch):
    from falcon_job.training.trainer import training_arguments
    from tests.training.conftest import REPOSITORY

    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: getattr(self, "_n_gpu", 4)))
    params = load_params(REPOSITORY / "presets" / "demo.yaml")
    arguments = training_arguments(params, Machine(), steps_per_epoch=4, validate=True, folder=tmp_path)

    assert arguments.train_batch_size == 1


def test_without_validation_questions_training_runs_all_the_same(workspace):
    write_split(workspace.dataset / "validation.arrow", [])
    history = run(workspace)

    assert not losses(history, "validation_loss")
    assert "validation_loss" not in json.loads((workspace.reports / "train.json").read_text(encoding="utf-8"))


def test_the_last_step_is_logged_whatever_the_interval(workspace):
    steps = [int(row["step"]) for row in run(workspace, train={"logging_steps": 5}) if row["train_loss"]]

    assert steps[-1] % 5
    assert steps[:-1] == list(range(5, steps[-1], 5))


def test_a_logged_loss_is_the_mean_over_its_interval(workspace):
    every = losses(run(workspace, train={"logging_steps": 1}))
    grouped = losses(run(workspace, train={"logging_steps": 4}))

    assert grouped[0] == pytest.approx(sum(every[:4]) / 4, rel=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(workspace):
    with pytest.raises(JobError, match=r"loss is (nan|inf) at step \d+: lower train.learning_rate"):
        run(workspace, train={"learning_rate": 1e30, "max_grad_norm": 1e30, "warmup_ratio": 0.0, "epochs": 5})

    assert not workspace.adapter.exists()


def test_packs_shorter_than_a_sequence_are_refused(workspace):
    with pytest.raises(MachineError, match=r"FALCON_JOB_TOKENS_PER_PACK=16 .* is below preprocess.max_tokens=512"):
        run(workspace, Machine(tokens_per_pack=16))


def test_settings_that_cannot_serve_are_refused_before_anything_is_loaded(workspace, monkeypatch):
    monkeypatch.setattr("falcon_job.model.compute.load_base", lambda *_: pytest.fail("loaded"))
    with pytest.raises(MachineError):
        run(workspace, Machine(tokens_per_pack=16))
    MistralForCausalLM(TINY_MISTRAL).save_pretrained(workspace.path("base"))
    pin(load_params(workspace.params).model, workspace).write(workspace.base)
    with pytest.raises(InputError, match="names a model with a sliding window of 8 tokens"):
        run(workspace)
