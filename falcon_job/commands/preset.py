"""Presets: complete, commented params.yaml files under presets/."""

from pathlib import Path

from falcon_job.errors import InputError
from falcon_job.files import write_text
from falcon_job.params import load_params
from falcon_job.stages.locks import lock
from falcon_job.workspace import Workspace


def list_presets(workspace: Workspace) -> str:
    """Return a line for each preset: its name and the first line of its comment."""
    lines = []
    for name, file in _presets(workspace).items():
        first, _, _ = file.read_text(encoding="utf-8").partition("\n")
        lines.append(f"{name:<16}{first.removeprefix('#').strip() if first.startswith('#') else ''}".rstrip() + "\n")
    return "".join(lines)


def write_preset(workspace: Workspace, name: str) -> None:
    """Write presets/NAME.yaml, once checked, to params.yaml.

    Raises:
        InputError: there is no such preset, or it is bad.
        JobError: a run is at work in the clone.
    """
    presets = _presets(workspace)
    if name not in presets:
        raise InputError(f"there is no preset {name}; there are:\n{list_presets(workspace)}".rstrip())
    load_params(presets[name])
    with lock(workspace, "run"):
        write_text(workspace.params, presets[name].read_text(encoding="utf-8"))


def _presets(workspace: Workspace) -> dict[str, Path]:
    return {file.stem: file for file in sorted(workspace.path("presets").glob("*.yaml"), key=lambda file: file.stem)}
