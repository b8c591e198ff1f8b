"""`falcon-job data`: copy the user's question files into data/ and set them in params.yaml."""

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

from falcon_job.errors import InputError, JobError, Problem
from falcon_job.files import write_text
from falcon_job.params import is_url, load_params
from falcon_job.stages.locks import clear_dvc_locks, lock
from falcon_job.workspace import Workspace

DEMO_KEYS = ("remote", "push", "desc", "meta")
"""Entries of data.dvc that only apply to the bundled demo, not to the user's own data."""


def import_data(workspace: Workspace, train: str, dev: str) -> None:
    """Copy two question files into data/, record them in data.dvc and set them in params.yaml.

    If a file has errors, nothing is changed. The data can never be pushed to the bundled remote, which is part of the
    Git repository.

    Raises:
        InputError: a file is missing, or it or params.yaml has errors.
        JobError: DVC failed, or a run is in progress in the clone.
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
    # Before data/ changes, so that `dvc push` can never send it to the bundled remote.
    _remove_demo_entries(workspace.root / "data.dvc")
    _copy(sources, targets)
    _set_params(workspace.params, {split: target.name for split, target in targets.items()})
    _remove_older(targets)
    _dvc(workspace, "commit", "--force", "data.dvc")


def _local(workspace: Workspace, split: str, source: str) -> Path:
    """Return the path of a local question file."""
    place = f"--{split} {source}"
    if is_url(source):
        fix = f"set dataset.{split} and dataset.{split}_sha256 in {workspace.params} instead"
        raise InputError("is a URL, but only files can be imported", place=place, fix=fix)
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError("is not a file", place=place, fix="give the path of a question file, such as squad/train.json")
    return path


def _copy(sources: dict[str, Path], targets: dict[str, Path]) -> None:
    """Copy each source to its target. The targets are replaced only when all copies are complete."""
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
    """Remove the files of earlier imports that have another suffix."""
    for split, target in targets.items():
        for older in target.parent.glob(f"{split}.*"):
            if older.stem == split and not older.samefile(target):
                older.unlink()


def _remove_demo_entries(dvc_file: Path) -> None:
    """Remove from data.dvc the entries that only apply to the bundled demo."""
    with _edit(dvc_file) as content:
        for key in DEMO_KEYS:
            content["outs"][0].pop(key, None)


def _set_params(params: Path, names: dict[str, str]) -> None:
    """Set the imported files in params.yaml. They need no sha256, since DVC tracks data/."""
    with _edit(params) as content:
        for split, name in names.items():
            content["dataset"][split] = f"data/{name}"
            content["dataset"][f"{split}_sha256"] = None


@contextlib.contextmanager
def _edit(path: Path) -> Iterator[Any]:
    """Yield the content of a YAML file, and write back the changes made to it. Comments and layout are kept."""
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
    """Writes `null` where ruamel would write nothing."""


_Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def _dvc(workspace: Workspace, *arguments: str) -> None:
    """Run DVC in the clone.

    Raises:
        JobError: it failed; `problems` has the lines that it printed.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    run = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True)  # noqa: S603 - fixed arguments
    if run.returncode:
        printed = [Problem(line) for line in (run.stderr or run.stdout).strip().splitlines()]
        raise JobError(
            "failed",
            place=f"`dvc {' '.join(arguments)}`",
            fix="fix what it reports here, and try again",
            problems=printed,
        )
