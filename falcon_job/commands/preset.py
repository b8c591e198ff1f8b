"""Presets: complete, commented params.yaml files under presets/."""

from falcon_job.errors import InputError
from falcon_job.files import write_text
from falcon_job.params import load_params
from falcon_job.workspace import Workspace


def list_presets(workspace: Workspace) -> str:
    """Return a line for each preset: its name and the first line of its comment."""
    lines = []
    for file in sorted(workspace.path("presets").glob("*.yaml")):
        lines.append(f"{file.stem:<16}{file.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}\n")
    return "".join(lines)


def write_preset(workspace: Workspace, name: str) -> None:
    """Write presets/NAME.yaml, once checked, to params.yaml.

    Raises:
        InputError: there is no such preset.
    """
    path = workspace.path("presets") / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"there is no preset {name}; there are:\n{list_presets(workspace)}".rstrip())
    load_params(path)
    write_text(workspace.params, path.read_text(encoding="utf-8"))
