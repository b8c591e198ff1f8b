"""Copy the train and dev files, from a path or a URL, byte for byte, with a manifest of their hashes."""

import shutil
from pathlib import Path, PurePath
from typing import Any

from falcon_job.errors import InputError, JobError
from falcon_job.files import new_folder, sha256_file, write_json
from falcon_job.params import DatasetParams, is_url
from falcon_job.sources.download import download
from falcon_job.workspace import Workspace

SPLITS = ("train", "dev")


def fetch_datasets(dataset: DatasetParams, workspace: Workspace) -> None:
    """Write train.*, dev.* and manifest.json to build/raw: all of them, or none.

    manifest.json records the source of each split (as in params), its sha256 and its size in bytes.

    Raises:
        InputError: a file is missing, has another sha256 than in params, or is outside data/ without one in params.
        JobError: the network or the disk failed.
    """
    try:
        with new_folder(workspace.raw) as folder:
            manifest = {split: _fetch_split(split, dataset, workspace, folder) for split in SPLITS}
            write_json(folder / "manifest.json", manifest)
    except OSError as error:
        raise JobError(
            f"could not be copied ({error.strerror})",
            place=error.filename or workspace.raw,
            fix="free disk space, or make the file readable, then run again",
        ) from error


def _fetch_split(split: str, dataset: DatasetParams, workspace: Workspace, folder: Path) -> dict[str, Any]:
    source: str = getattr(dataset, split)
    expected: str | None = getattr(dataset, f"{split}_sha256")
    copy = folder / f"{split}{_suffix(split, source)}"
    shutil.copyfile(_local_file(split, source, expected, workspace), copy)
    actual = sha256_file(copy)
    if expected not in (None, actual):
        raise InputError(
            f"has sha256 {actual}, but params.yaml says {expected}",
            place=f"dataset.{split}: {source}",
            fix=f"restore the file, or set dataset.{split}_sha256 to {actual} to accept the change",
        )
    return {"source": source, "sha256": actual, "bytes": copy.stat().st_size}


def _suffix(split: str, source: str) -> str:
    """Return the suffix of a path or URL, such as .json, which tells its format."""
    path = source.partition("?")[0].partition("#")[0] if is_url(source) else source
    suffix = PurePath(path).suffix
    if not suffix:
        raise InputError(
            "has no suffix such as .json, which tells its format", place=f"dataset.{split}: {source}", fix="rename it"
        )
    return suffix


def _local_file(split: str, source: str, sha256: str | None, workspace: Workspace) -> Path:
    if sha256 is not None and is_url(source):  # params.py refuses a URL without a sha256
        return download(source, sha256, workspace.downloads)
    path = workspace.path(source)
    place = f"dataset.{split}: {path}"
    if not path.is_file():
        fix = "correct the path in params.yaml, or run `dvc pull` if DVC tracks the file"
        raise InputError("does not exist, or is not a file", place=place, fix=fix)
    if sha256 is None and not workspace.is_watched(path):
        fix = f"set dataset.{split}_sha256 to {sha256_file(path)}"
        raise InputError("is outside data/, so DVC does not track it", place=place, fix=fix)
    return path
