"""Presets: complete, commented params.yaml files under presets/."""

from pathlib import Path

from falcon_job.errors import InputError, Problem
from falcon_job.files import write_text
from falcon_job.params import load_params
from falcon_job.stages.locks import lock
from falcon_job.workspace import Workspace


def list_presets(workspace: Workspace) -> str:
    """Return one line per preset: its name and the first line of its comment, which says what it is for."""
    lines = []
    for name, file in _presets(workspace).items():
        first, _, _ = file.read_text(encoding="utf-8").partition("\n")
        lines.append(f"{name:<16}{first.removeprefix('#').strip() if first.startswith('#') else ''}".rstrip() + "\n")
    return "".join(lines)


def write_preset(workspace: Workspace, name: str) -> None:
    """Check presets/NAME.yaml and copy it to params.yaml.

    Raises:
        InputError: the preset does not exist, or has errors.
        JobError: a run is in progress in the clone.
    """
    presets = _presets(workspace)
    if name not in presets:
        listed = [Problem(line) for line in list_presets(workspace).splitlines()]
        raise InputError("does not exist", place=f"preset {name}", fix="choose one of these", problems=listed)
    load_params(presets[name])
    with lock(workspace, "run"):
        write_text(workspace.params, presets[name].read_text(encoding="utf-8"))


def _presets(workspace: Workspace) -> dict[str, Path]:
    return {file.stem: file for file in sorted(workspace.path("presets").glob("*.yaml"), key=lambda file: file.stem)}
