"""Killed runs of the train stage resume to the same bytes."""

import pytest

from falcon_job.model.compute import FULL_PACK
from falcon_job.training.callbacks import RunningLoss
from falcon_job.training.trainer import PackedTrainer
from tests.training.runs import adapter_bytes, run


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

    assert f"deleting {newest}, which is incomplete" in caplog.text
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
        sizes.append(kwargs["train_dataset"]._packer.tokens_per_pack)
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
