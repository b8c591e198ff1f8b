"""What a run of the train stage shows, hands to trackers, and leaves when it is stopped."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from falcon_job.errors import InputError, Stopped
from falcon_job.training.trainer import PackedTrainer
from tests.training.conftest import write_params
from tests.training.runs import run


def test_what_a_tracker_wrote_outlives_the_checkpoints(workspace, monkeypatch):
    original = PackedTrainer._finalize_training

    def finalize(self, *args, **kwargs):
        (Path(self.args.output_dir) / "runs").mkdir()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PackedTrainer, "_finalize_training", finalize)
    run(workspace)

    assert [path.name for path in workspace.checkpoints.glob("*/*")] == ["runs"]


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
        ("tensorbord", "tensorbord, which cannot be used .*: choose from .*tensorboard"),
        ("dvclive", "dvclive would rewrite dvc.yaml"),
        ("comet_ml", "comet_ml, which is not installed: install it"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_named_before_training(workspace, tracker, problem):
    with pytest.raises(InputError, match=rf"train.report_to names .*{problem}"):
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
    assert "self-check: packs match separate sequences" in result.stderr
    assert "attention sdpa, packs of at most 2048 tokens, compiled layers off, activation" in result.stderr
    assert "it/s" not in result.stderr
    assert "\r" not in result.stderr
    logs = list((workspace.scratch / "logs").glob("*-train.log"))
    assert len(logs) == 1
    assert "step 1/" in logs[0].read_text(encoding="utf-8")
