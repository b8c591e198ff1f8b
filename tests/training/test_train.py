import contextlib
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import MistralConfig, MistralForCausalLM, TrainingArguments

from falcon_job.errors import InputError, JobError, MachineError, Stopped
from falcon_job.machine import Machine
from falcon_job.model.compute import FULL_PACK
from falcon_job.packing.pack import PackForm
from falcon_job.params import load_params
from falcon_job.sources.base_model import pin
from falcon_job.stages.running import _out_of_memory_explained
from falcon_job.stages.train import train
from falcon_job.tokens.dataset import Split, write_split
from falcon_job.training.callbacks import RunningLoss
from falcon_job.training.steps import StepDataset
from falcon_job.training.trainer import PackedTrainer
from tests.tiny_models import VOCABULARY
from tests.training.conftest import write_params

TINY_MISTRAL = MistralConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    sliding_window=8,
)


def run(workspace, machine=None, **changes):
    write_params(workspace, **changes)
    train(load_params(workspace.params), machine or Machine(), workspace)
    return rows(workspace)


def rows(workspace):
    with (workspace.reports / "history.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def losses(history, column="train_loss"):
    return [float(row[column]) for row in history if row[column]]


def adapter_bytes(workspace):
    return {file.name: file.read_bytes() for file in workspace.adapter.iterdir()}


def test_training_lowers_the_loss_and_leaves_adapter_history_and_report(workspace):
    history = run(workspace, train={"epochs": 8, "learning_rate": 0.02})
    report = json.loads((workspace.reports / "train.json").read_text(encoding="utf-8"))

    assert sum(losses(history)[-8:]) / 8 < 0.9 * losses(history)[0]
    assert {file.name for file in workspace.adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert report["loss"] == losses(history)[-1]
    assert report["validation_loss"] == losses(history, "validation_loss")[-1]
    assert report["questions"] == sum(Split(workspace.dataset / "train.arrow").question_counts)
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


def test_the_loss_of_a_step_weighs_every_answer_token_alike_as_one_batch_of_separate_sequences(workspace):
    """The oracle is the model's own mean loss over all answer tokens of the step."""
    from falcon_job.model.adapter import add_adapter
    from falcon_job.model.loading import load_base

    params = load_params(workspace.params)
    first = losses(run(workspace))[0]
    model = add_adapter(load_base(workspace.path("base"), "fp32", torch.device("cpu")), params.lora, params.train.seed)
    steps = StepDataset(Split(workspace.dataset / "train.arrow"), 6, PackForm.dense(512), params.train.seed)
    token_losses = []
    for tree in steps.trees(0):
        for branch in tree.branches:
            ids = torch.tensor([[*tree.prefix_ids, *branch.prompt_ids, *branch.answer_ids]])
            log_probabilities = model(input_ids=ids).logits[0].log_softmax(-1)
            start = ids.shape[1] - len(branch.answer_ids)
            token_losses += [-log_probabilities[start + i - 1, t].item() for i, t in enumerate(branch.answer_ids)]

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
    arguments = training_arguments(params, steps_per_epoch=4, validate=True, folder=tmp_path)

    assert arguments.train_batch_size == 1


def test_what_a_tracker_wrote_outlives_the_checkpoints(workspace, monkeypatch):
    original = PackedTrainer._finalize_training

    def finalize(self, *args, **kwargs):
        (Path(self.args.output_dir) / "runs").mkdir()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PackedTrainer, "_finalize_training", finalize)
    run(workspace)

    assert [path.name for path in workspace.checkpoints.glob("*/*")] == ["runs"]


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


class Interrupted(Exception):
    """The power fails."""


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_run_killed_after_a_checkpoint_goes_on_to_the_same_bytes(workspace, monkeypatch, dropout):
    settings = {"train": {"epochs": 3, "logging_steps": 3}, "lora": {"dropout": dropout}}
    run(workspace, **settings)
    expected = adapter_bytes(workspace), (workspace.reports / "history.csv").read_bytes()

    original = PackedTrainer.training_step
    calls = []

    def failing(self, *args, **kwargs):
        calls.append(self.state.global_step)
        if self.state.epoch and self.state.epoch > 2.2:
            raise Interrupted
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PackedTrainer, "training_step", failing)
    with pytest.raises(Interrupted):
        run(workspace, **settings)
    monkeypatch.setattr(PackedTrainer, "training_step", original)
    resumed = []
    monkeypatch.setattr(
        RunningLoss, "add", lambda self, loss, add=RunningLoss.add: (resumed.append(1), add(self, loss))
    )
    run(workspace, **settings)

    assert len(resumed) < len(calls)
    assert (adapter_bytes(workspace), (workspace.reports / "history.csv").read_bytes()) == expected


def test_a_changed_setting_does_not_resume_the_old_run(workspace, monkeypatch):
    with pytest.raises(Interrupted):
        monkeypatch.setattr(PackedTrainer, "_finalize_training", _interrupt)
        run(workspace)
    monkeypatch.undo()
    changed = run(workspace, train={"learning_rate": 0.02})

    assert int(changed[0]["step"]) == 1
    assert float(changed[2]["learning_rate"]) > 0.011


def _interrupt(*_args, **_kwargs):
    raise Interrupted


def test_a_half_written_checkpoint_is_passed_over_for_the_one_before(workspace, monkeypatch, caplog):
    with pytest.raises(Interrupted):
        monkeypatch.setattr(PackedTrainer, "_finalize_training", _interrupt)
        run(workspace)
    monkeypatch.undo()
    newest = max(workspace.checkpoints.glob("*/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (newest / "trainer_state.json").unlink()
    with caplog.at_level("INFO", logger="falcon_job"):
        history = run(workspace)

    assert f"{newest} is half written" in caplog.text
    assert "resuming from" in caplog.text
    assert [int(row["step"]) for row in history] == list(range(1, len(history) + 1))


def test_a_run_killed_after_its_last_step_only_writes_its_results(workspace, monkeypatch):
    run(workspace)
    expected = adapter_bytes(workspace), (workspace.reports / "history.csv").read_bytes()
    with pytest.raises(Interrupted):
        monkeypatch.setattr(PackedTrainer, "_finalize_training", _interrupt)
        run(workspace)
    monkeypatch.undo()
    monkeypatch.setattr(PackedTrainer, "training_step", _interrupt)
    run(workspace)

    assert (adapter_bytes(workspace), (workspace.reports / "history.csv").read_bytes()) == expected


def test_a_resumed_run_keeps_the_pack_size_that_auto_chose(workspace, monkeypatch):
    sizes = []
    original = PackedTrainer.__init__

    def init(self, *args, **kwargs):
        sizes.append(kwargs["train_dataset"]._form.capacity)
        original(self, *args, **kwargs)

    monkeypatch.setattr(PackedTrainer, "__init__", init)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(PackedTrainer, "_finalize_training", _interrupt)
        run(workspace)
    monkeypatch.setitem(FULL_PACK, "sdpa", 4096)  # as on another machine
    run(workspace)

    assert sizes == [2048, 2048]


def test_at_most_as_many_checkpoints_are_kept_as_asked(workspace, monkeypatch):
    with pytest.raises(Interrupted):
        monkeypatch.setattr(PackedTrainer, "_finalize_training", _interrupt)
        run(workspace, train={"epochs": 4, "save_total_limit": 2})

    assert len(list(workspace.checkpoints.glob("*/checkpoint-*"))) == 2


def test_a_loss_that_is_no_number_stops_the_run_with_advice_and_no_adapter(workspace):
    with pytest.raises(JobError, match=r"loss is (nan|inf) at step \d+: lower train.learning_rate"):
        run(workspace, train={"learning_rate": 1e30, "max_grad_norm": 1e30, "warmup_ratio": 0.0, "epochs": 5})

    assert not workspace.adapter.exists()


def test_a_gpu_that_is_too_small_is_an_error_that_says_which_setting_to_lower(workspace, monkeypatch):
    def full(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackedTrainer, "training_step", full)
    message = "train does not fit the GPU: set FALCON_JOB_TOKENS_PER_PACK lower"
    with pytest.raises(MachineError, match=message), _out_of_memory_explained("train"):
        run(workspace)


def test_packs_shorter_than_a_sequence_are_refused(workspace):
    with pytest.raises(MachineError, match=r"FALCON_JOB_TOKENS_PER_PACK=16 .* is below preprocess.max_tokens=512"):
        run(workspace, Machine(tokens_per_pack=16))


def test_settings_that_cannot_serve_are_refused_before_anything_is_loaded(workspace, monkeypatch):
    monkeypatch.setattr("falcon_job.model.compute.load_base", lambda *_: pytest.fail("loaded"))
    with pytest.raises(MachineError):
        run(workspace, Machine(tokens_per_pack=16))
    MistralForCausalLM(TINY_MISTRAL).save_pretrained(workspace.path("base"))
    pin(load_params(workspace.params).model, workspace).write(workspace.base)
    with pytest.raises(InputError, match="attends over a sliding window of 8 tokens"):
        run(workspace)


def test_trackers_are_handed_to_trainer(workspace, monkeypatch):
    seen = []
    original = PackedTrainer.__init__

    def init(self, *args, **kwargs):
        seen.append(kwargs["args"].report_to)
        original(self, *args, **{**kwargs})

    monkeypatch.setattr(PackedTrainer, "__init__", init)
    monkeypatch.setattr("transformers.trainer.get_reporting_integration_callbacks", lambda names: [])
    monkeypatch.setattr("falcon_job.training.trainer.get_available_reporting_integrations", lambda: ["tensorboard"])
    run(workspace, train={"epochs": 1, "report_to": ["tensorboard"]})

    assert seen == [["tensorboard"]]


@pytest.mark.parametrize(
    ("tracker", "problem"),
    [
        ("tensorbord", "tensorbord cannot be used; there are .*tensorboard"),
        ("dvclive", "dvclive would rewrite dvc.yaml"),
        ("comet_ml", "comet_ml is not installed"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_named_before_training(workspace, tracker, problem):
    with pytest.raises(InputError, match=rf"train.report_to: .*{problem}"):
        run(workspace, train={"report_to": [tracker]})


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_on_a_terminal_there_is_a_bar_with_the_lines_above_it(workspace):
    import fcntl
    import pty
    import struct
    import termios

    write_params(workspace, train={"epochs": 1})
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "falcon_job", "train"]
    process = subprocess.Popen(command, cwd=workspace.root, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # how Linux ends a terminal that nobody holds any more
        while data := os.read(ours, 4096):
            shown += data.decode()

    assert process.wait() == 0
    assert "100%|" in shown
    assert "train: step 1/" in shown
    assert "{'loss'" not in shown


def test_a_signal_in_the_middle_leaves_no_half_written_adapter(workspace, monkeypatch):
    def stop(*_args):
        raise Stopped(15)

    monkeypatch.setattr("falcon_job.stages.train.save_adapter", stop)
    with pytest.raises(Stopped):
        run(workspace)

    assert list(workspace.adapter.parent.glob("*adapter*")) == []


def test_without_a_terminal_there_are_plain_lines_and_no_bar(workspace):
    write_params(workspace, train={"epochs": 1})
    result = subprocess.run(
        [sys.executable, "-m", "falcon_job", "train"],
        cwd=workspace.root,
        capture_output=True,
        text=True,
        check=True,
    )

    pace = r"train: step 1/\d+, epoch [\d.]+: loss [\d.]+, learning rate \S+, [\d,]+ questions/s, [\d,]+ tokens/s, "
    assert re.search(pace + r"\d+\.\d GB, \d:\d\d:\d\d left", result.stderr)
    assert "self-check: packed equals separate" in result.stderr
    assert "attention sdpa, packs of at most 2048 tokens, compiled layers off, activation" in result.stderr
    assert "it/s" not in result.stderr
    assert "\r" not in result.stderr
    logs = list((workspace.scratch / "logs").glob("*-train.log"))
    assert len(logs) == 1
    assert "step 1/" in logs[0].read_text(encoding="utf-8")
