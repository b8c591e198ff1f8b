"""`falcon-job run`: `dvc repro` for make, containers and schedulers.

It checks params and machine settings, takes the lock of the clone, pulls data/ if it is missing, runs `dvc repro`,
forwards signals to the running stage, and exits with the code of the stage that failed.
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

from falcon_job.errors import InputError, Problem, Stopped
from falcon_job.machine import read_machine
from falcon_job.params import load_params
from falcon_job.stages.locks import clear_dvc_locks, lock
from falcon_job.stages.running import EXIT_CODE_FILE, RUN_PID
from falcon_job.workspace import Workspace

RESEND_SECONDS = 0.5
"""How often a signal is sent again. DVC ignores signals, and may start the next stage right after one was sent."""


def run(stage: str | None) -> None:
    """Run the pipeline, or `stage` and the stages it depends on; exit with the code of a stage that fails.

    Raises:
        InputError: params.yaml or a machine setting is invalid, or data/ is missing and cannot be pulled.
        JobError: another run, or DVC itself, is running in the clone.
        Stopped: a signal arrived before the pipeline started.
    """
    workspace = Workspace.find()
    params = load_params(workspace.params)
    read_machine(workspace.root)  # refuses invalid settings before anything runs
    click.echo(f"model {params.model.source}, {params.model.precision}, on {params.dataset.train}")
    with lock(workspace, "run"), _record_signals() as received:
        clear_dvc_locks(workspace)
        _pull_missing_data(workspace, received)
        code = _reproduce(workspace, stage, received)
    if code:
        sys.exit(code)
    if stage is None:
        from falcon_job.reporting.summary import print_summary

        print_summary(params, workspace)


@contextmanager
def _record_signals() -> Iterator[list[int]]:
    """Append SIGTERM and SIGINT to the list that is yielded, instead of ending the process."""
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
        with tempfile.TemporaryFile() as printed:
            pull = [sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc"]
            process = subprocess.Popen(pull, cwd=workspace.root, stderr=printed, start_new_session=True)  # noqa: S603
            if _wait(process, received) and not received:
                printed.seek(0)
                lines = printed.read().decode(errors="replace").strip().splitlines()
                raise InputError(
                    "is missing and `dvc pull data.dvc` failed",
                    place="data/",
                    fix="copy it here, or set its DVC remote",
                    problems=[Problem(line) for line in lines],
                )
    if received:
        raise Stopped(received[0])


def _reproduce(workspace: Workspace, stage: str | None, received: list[int]) -> int:
    """Run `dvc repro` and return 0, or the exit code of the stage that failed."""
    with tempfile.TemporaryDirectory() as folder:
        code_file = Path(folder) / "exit-code"
        command = [sys.executable, "-m", "dvc", "repro", *([stage] if stage else [])]
        # SIGTERM would end DVC but not its stage. So DVC ignores signals. The stage handles them, and DVC ends with it.
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
    """Return the environment for DVC, in which the `python` of dvc.yaml is this interpreter."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, EXIT_CODE_FILE: str(code_file), RUN_PID: str(os.getpid())}


def _ignore_signals() -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)


def _wait(process: "subprocess.Popen[bytes]", received: list[int]) -> int:
    """Wait until a process ends, and return its exit code. Pass the first signal received on to it and its children."""
    while True:
        try:
            return process.wait(RESEND_SECONDS)
        except subprocess.TimeoutExpired:
            if received and sys.platform != "win32":
                os.killpg(process.pid, received[0])
