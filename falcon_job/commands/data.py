"""`make data TRAIN=... DEV=...`: put own question files into data/ and name them in params.yaml."""

import contextlib
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from falcon_job.errors import InputError, JobError
from falcon_job.files import write_text
from falcon_job.params import is_url, load_params
from falcon_job.stages.locks import clear_dvc_locks, lock
from falcon_job.workspace import Workspace

DEMO_KEYS = ("remote", "push", "desc", "meta")
"""What data.dvc says about the bundled demo and what is not true of own data."""


def import_data(workspace: Workspace, train: str, dev: str) -> None:
    """Copy two question files into data/, record them in data.dvc and set them in params.yaml.

    Nothing changes when a file is bad. Own data never goes to the bundled remote, which lies in Git.

    Raises:
        InputError: a file is missing or bad, or params.yaml is.
        JobError: DVC failed, or a run is at work in the clone.
    """
    with lock(workspace, "run"):
        clear_dvc_locks(workspace)
        _import(workspace, train, dev)


def _import(workspace: Workspace, train: str, dev: str) -> None:
    from falcon_job.records.dataset import read_passages

    load_params(workspace.params)
    sources = {"train": _local(workspace, "train", train), "dev": _local(workspace, "dev", dev)}
    for source in sources.values():
        read_passages(source)
    targets = {split: workspace.data / f"{split}{source.suffix.lower()}" for split, source in sources.items()}

    if not workspace.data.is_dir():
        _dvc(workspace, "pull", "data.dvc")
    # First, so that no `dvc push` ever meets own data that data.dvc still calls the demo.
    _forget_demo(workspace.root / "data.dvc")
    _copy(sources, targets)
    _set_params(workspace.params, {split: target.name for split, target in targets.items()})
    _remove_older(targets)
    _dvc(workspace, "commit", "--force", "data.dvc")


def _local(workspace: Workspace, split: str, source: str) -> Path:
    """Return the path of a local file."""
    if is_url(source):
        raise InputError(
            f"{split.upper()}={source} is a URL and is not copied: "
            f"set dataset.{split} and dataset.{split}_sha256 in {workspace.params} instead"
        )
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"{split.upper()}={source}: no such file; name a question file, such as squad/train.json")
    return path


def _copy(sources: dict[str, Path], targets: dict[str, Path]) -> None:
    """Copy each source to its target; all copies are complete before the first target changes."""
    parts = {split: target.with_name(f"{target.name}.part") for split, target in targets.items()}
    try:
        for split, source in sources.items():
            shutil.copyfile(source, parts[split])
        for split, part in parts.items():
            part.replace(targets[split])
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _remove_older(targets: dict[str, Path]) -> None:
    """Remove the files of earlier imports that had another suffix."""
    for split, target in targets.items():
        for older in target.parent.glob(f"{split}.*"):
            if older.stem == split and not older.samefile(target):
                older.unlink()


def _forget_demo(dvc_file: Path) -> None:
    """Take the marks of the bundled demo out of data.dvc."""
    with _edit(dvc_file) as content:
        for key in DEMO_KEYS:
            content["outs"][0].pop(key, None)


def _set_params(params: Path, names: dict[str, str]) -> None:
    """Name files of data/ in params.yaml; DVC watches them there, so they need no sha256."""
    with _edit(params) as content:
        for split, name in names.items():
            content["dataset"][split] = f"data/{name}"
            content["dataset"][f"{split}_sha256"] = None


@contextlib.contextmanager
def _edit(path: Path) -> Iterator[Any]:
    """Change a YAML file in one step, keeping its comments and layout."""
    text = path.read_text(encoding="utf-8")
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = sys.maxsize
    if "\n    - " in text:  # params.yaml indents lists, data.dvc does not
        yaml.indent(mapping=2, sequence=4, offset=2)
    content = yaml.load(text)
    yield content
    changed = io.StringIO()
    yaml.dump(content, changed)
    write_text(path, changed.getvalue())


class _Representer(RoundTripRepresenter):
    """Writes `null` in full; ruamel would leave the value blank."""


_Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def _dvc(workspace: Workspace, *arguments: str) -> None:
    """Run DVC in the clone.

    Raises:
        JobError: it failed; the message holds what it said.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    run = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True)  # noqa: S603 - fixed arguments
    if run.returncode:
        said = (run.stderr or run.stdout).strip()
        raise JobError(f"`dvc {' '.join(arguments)}` failed; mend this and try again: {said}")
