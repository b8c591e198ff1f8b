"""What a check looks at, and what it returns."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from falcon_job.errors import InputError
from falcon_job.machine import read_machine
from falcon_job.params import Params, load_params
from falcon_job.workspace import Workspace

BYTES_PER_MB = 1e6
BYTES_PER_GB = 1e9


@dataclass(frozen=True)
class Finding:
    """The outcome of a check; see `ok`, `note` and `problem`."""

    status: Literal["ok", "note", "problem"]
    found: str
    fix: str | None = None
    """What to do; None when ok."""


def ok(found: str) -> Finding:
    """All is well."""
    return Finding("ok", found)


def note(found: str, fix: str) -> Finding:
    """The job runs, but slower, or with less."""
    return Finding("note", found, fix)


def problem(found: str, fix: str) -> Finding:
    """The job cannot run with the present params."""
    return Finding("problem", found, fix)


@dataclass(frozen=True)
class Surroundings:
    """What `falcon-job` runs on and for; what is missing or bad is None here and a line of its own check."""

    workspace: Workspace | None = None
    params: Params | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


def look_around() -> Surroundings:
    """Return the clone around the current directory, its params, and the device that is asked for."""
    workspace = params = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    with contextlib.suppress(InputError):
        workspace = Workspace.find()
    with contextlib.suppress(InputError):
        device = read_machine(workspace.root if workspace else Path.cwd()).device
    with contextlib.suppress(InputError):
        workspace = Workspace.find()
        params = load_params(workspace.params)
    return Surroundings(workspace, params, device)


def uses_gpu(here: Surroundings) -> bool:
    """Tell whether the job would run on a GPU, as `choose_device` decides it."""
    import torch

    return here.device != "cpu" and torch.cuda.is_available()


def needs_bitsandbytes(params: Params | None) -> bool:
    """Tell whether the params ask for 4-bit weights or an optimizer of bitsandbytes."""
    return params is not None and (
        params.model.precision == "nf4" or not params.train.optimizer.startswith("adamw_torch")
    )


def readable(size: float) -> str:
    """Return a number of bytes in GB (1e9, as in reports/), a small one in MB."""
    if size < BYTES_PER_GB / 10:
        return f"{size / BYTES_PER_MB:.1f} MB"
    return f"{size / BYTES_PER_GB:.1f} GB"


def renew_environment() -> str:
    """Say how to install what requirements.lock names."""
    return "`make image`" if _in_image() else "`rm -f .venv/.ready && make env`"


def renew_torch(build: str) -> str:
    """Say how to install another build of torch; an empty `build` is the one of the package registry."""
    index = f" TORCH_INDEX=ADDRESS with the index of PyTorch's install page for {build}" if build else ""
    return f"`make image{index}`" if _in_image() else f"remove .venv/, then `make env`{index}"


def _in_image() -> bool:
    return "FALCON_JOB_IMAGE" in os.environ
