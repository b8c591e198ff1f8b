"""`falcon-job run`: the one way in for make, the image and schedulers.

Checks params, takes the clone's lock, pulls data/ where it is missing, runs `dvc repro`, passes signals on to the
running stage, and returns the failed stage's own exit code.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from falcon_job.errors import InputError, Stopped
from falcon_job.machine import read_machine
from falcon_job.params import load_params
from falcon_job.stages.locks import clear_dvc_locks, lock
from falcon_job.stages.running import EXIT_CODE_FILE, RUN_PID
from falcon_job.workspace import Workspace

RESEND_SECONDS = 0.5
"""DVC outlives the signal so as to release its locks; a stage it starts meanwhile must get it too."""


def run(stage: str | None) -> None:
    """Run the pipeline, or its part up to `stage`; exit with the failed stage's code.

    Raises:
        InputError: params.yaml or a machine setting is bad, or data/ can neither be found nor pulled.
        JobError: another run, or a DVC, is at work in the clone.
        Stopped: a signal came before the pipeline started.
    """
    workspace = Workspace.find()
    params = load_params(workspace.params)
    read_machine(workspace.root)  # refused before anything runs
    click.echo(f"model {params.model.source}, {params.model.precision}, on {params.dataset.train}")
    with lock(workspace, "run"), _signals_noted() as received:
        clear_dvc_locks(workspace)
        _pull_missing_data(workspace, received)
        code = _reproduce(workspace, stage, received)
    if code:
        sys.exit(code)
    if stage is None:
        from falcon_job.reporting.summary import print_summary

        print_summary(params, workspace)


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in the list that is yielded."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {each: signal.signal(each, note) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _pull_missing_data(workspace: Workspace, received: list[int]) -> None:
    if not workspace.data.exists() and workspace.path("data.dvc").is_file():
        with tempfile.TemporaryFile() as said:
            pull = [sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc"]
            process = subprocess.Popen(pull, cwd=workspace.root, stderr=said, start_new_session=True)  # noqa: S603
            if _wait(process, received) and not received:
                said.seek(0)
                raise InputError(
                    "data/ is missing and `dvc pull data.dvc` cannot bring it: copy it here, or set its remote\n"
                    + said.read().decode(errors="replace").strip()
                )
    if received:
        raise Stopped(received[0])


def _reproduce(workspace: Workspace, stage: str | None, received: list[int]) -> int:
    """Run `dvc repro` and return 0, or the exit code of the stage that failed."""
    with tempfile.TemporaryDirectory() as folder:
        code_file = Path(folder) / "exit-code"
        command = [sys.executable, "-m", "dvc", "repro", *([stage] if stage else [])]
        # TERM to DVC alone would end it and leave the stage running: DVC ignores signals, its stage gets them.
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and a stage name
            command,
            cwd=workspace.root,
            env=_environment(code_file),
            start_new_session=True,
            preexec_fn=None if sys.platform == "win32" else _ignore_signals,
        )
        if not _wait(process, received):
            return 0
        if code_file.exists():
            return int(code_file.read_text(encoding="utf-8"))
        return 128 + received[0] if received else 1


def _environment(code_file: Path) -> dict[str, str]:
    """Return the environment of DVC: `python` in dvc.yaml is the Python that runs now."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, EXIT_CODE_FILE: str(code_file), RUN_PID: str(os.getpid())}


def _ignore_signals() -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)


def _wait(process: "subprocess.Popen[bytes]", received: list[int]) -> int:
    """Wait for a process to end, sending it and all that it starts the first signal received, again and again."""
    while True:
        try:
            return process.wait(RESEND_SECONDS)
        except subprocess.TimeoutExpired:
            if received and sys.platform != "win32":
                os.killpg(process.pid, received[0])
