"""The input of a check and its result."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from falcon_job.errors import InputError, JobError, Problem
from falcon_job.machine import Machine, read_machine
from falcon_job.params import Params, load_params
from falcon_job.workspace import Workspace


@dataclass(frozen=True)
class Finding:
    """What a check found, and how to fix it, unless it is ok.

    With a note, the job can run, but more slowly or without some feature. With a problem, it cannot run with the
    current params.
    """

    status: Literal["ok", "note", "problem"]
    found: str
    fix: str | None = None


def problem(error: JobError) -> Finding:
    """Return an error as a finding."""
    found = "; ".join(map(str, (Problem(error.problem, error.place), *error.problems)))
    return Finding("problem", found, error.fix or "correct what this line names")


@dataclass(frozen=True)
class Surroundings:
    """The clone, params and settings to check. What is missing or invalid keeps its default."""

    workspace: Workspace | None = None
    params: Params | None = None
    machine: Machine = field(default_factory=Machine.model_construct)


def look_around() -> Surroundings:
    """Return the clone around the current directory, its params and the settings of this machine."""
    workspace, params, machine = None, None, Machine.model_construct()
    with contextlib.suppress(InputError):
        workspace = Workspace.find()
    with contextlib.suppress(InputError):
        machine = read_machine(workspace.root if workspace else Path.cwd())
    with contextlib.suppress(InputError):
        params = load_params(workspace.params) if workspace else None
    return Surroundings(workspace, params, machine)


def gigabytes(size: float) -> str:
    """Return a number of bytes in GB (1e9, as in reports/)."""
    return f"{size / 1e9:.1f} GB"


def reinstall(*, another_torch: bool = False) -> str:
    """Return the fix that reinstalls what requirements.lock pins, or another build of torch."""
    command = "make image" if "FALCON_JOB_IMAGE" in os.environ else "rm -rf .venv && make env"
    return (
        f"run `{command} TORCH_INDEX=URL`, the URL from PyTorch's install page" if another_torch else f"run `{command}`"
    )
