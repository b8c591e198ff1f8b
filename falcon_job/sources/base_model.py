"""The base model, pinned: build/base.json records its source, its revision and the sha256 of each of its files.

`pin` creates this record, in the fetch stage. `locate` returns the folder that matches it, in all later stages. `find`
looks for a complete model without using the network. Only safetensors weights, configuration and tokenizer files are
used, never code (*.py) or pickles (*.bin, *.pt).
"""

import json
import logging
import re
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from falcon_job.errors import InputError, JobError, first_line
from falcon_job.files import sha256_file, write_text
from falcon_job.params import ModelParams, Sha256
from falcon_job.sources.hub import download_files, find_in_cache, list_files
from falcon_job.workspace import Workspace

logger = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
TOKENIZER = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
SETTINGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
FILES = (*WEIGHTS, *TOKENIZER, *SETTINGS)
"""Names of the files that are downloaded and hashed. Files in subfolders are ignored."""


class PinnedModel(BaseModel):
    """A base model with the hash of each of its files: the content of build/base.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    """As in params: a folder, or a Hub id when `revision` is set."""
    revision: str | None
    files: dict[str, Sha256]
    """The sha256 of each file, by name, sorted."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record, such as build/base.json.

        Raises:
            InputError: it is missing or damaged.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError("is missing", place=path, fix="run `falcon-job fetch` first") from error
        except ValidationError as error:
            raise InputError("is damaged", place=path, fix="run `dvc repro -f fetch` to write it again") from error

    def write(self, path: Path) -> None:
        """Write the record atomically."""
        write_text(path, self.model_dump_json(indent=2) + "\n")


def pin(model: ModelParams, workspace: Workspace) -> PinnedModel:
    """Return the record of a base model. Files that are not in the Hub cache are downloaded first.

    Raises:
        InputError: there is no such model, or it lacks its configuration, tokenizer or safetensors weights.
        JobError: the network failed, or a download is damaged.
    """
    if model.revision is None:
        folder = _existing_folder(model.source, workspace)
        if not workspace.is_watched(folder):
            logger.warning("%s is outside data/, so DVC does not track it; every stage checks its hashes", folder)
    else:
        folder = _download(model, model.revision, workspace)
    files = _hash_files(folder)
    if model.revision is not None:
        _check_blobs(folder, files)
    _check_complete(folder, files, model.source)
    return PinnedModel(source=model.source, revision=model.revision, files=files)


def locate(workspace: Workspace, pinned: PinnedModel | None = None) -> Path:
    """Check every file of a base model against its record (default: build/base.json), and return its folder.

    Files that are not in the Hub cache are downloaded, unless HF_HUB_OFFLINE is set.

    Raises:
        InputError: build/base.json is missing, or a file of the model does not match the record.
        JobError: the network failed, or HF_HUB_OFFLINE is set and a file is not in the cache.
    """
    pinned = pinned or PinnedModel.read(workspace.base)
    if pinned.revision is None:
        folder = _existing_folder(pinned.source, workspace)
    else:
        folder = download_files(pinned.source, pinned.revision, pinned.files)
    found = _hash_files(folder)
    for name in sorted(found.keys() | pinned.files):
        if found.get(name) != pinned.files.get(name):
            raise _changed(folder / name, pinned.revision)
    return folder


def find(model: ModelParams, workspace: Workspace) -> Path:
    """Return the folder of a base model that is complete on this machine. This uses no network and hashes nothing.

    Raises:
        InputError: the model is not complete in its folder or in the Hub cache.
    """
    folder: Path | None
    if model.revision is None:
        folder = _existing_folder(model.source, workspace)
    else:
        folder = find_in_cache(model.source, model.revision)
    if folder is None:
        raise InputError(
            "is not in the Hub cache",
            place=f"model.source: {model.source}",
            fix="run `falcon-job fetch` to download it",
        )
    _check_complete(folder, {path.name for path in folder.iterdir() if path.is_file()}, model.source)
    return folder


def _download(model: ModelParams, revision: str, workspace: Workspace) -> Path:
    """Download the files of a model that are not in the cache, and return its folder there.

    If the Hub cannot be reached or refuses, a complete copy in the cache is used: a commit never changes. Weights are
    downloaded last, so a copy that has all weights has the other files, too.
    """
    try:
        names = [name for name in list_files(model.source, revision) if _matches(name, FILES)]
    except JobError as error:
        with suppress(InputError):
            folder = find(model, workspace)
            logger.warning("using the complete copy in the cache, because %s", error)
            return folder
        raise
    _check_names(names, model.source)
    return download_files(model.source, revision, sorted(names, key=lambda name: (_matches(name, WEIGHTS), name)))


def _existing_folder(source: str, workspace: Workspace) -> Path:
    folder = workspace.path(source)
    if not folder.is_dir():
        raise InputError(
            "does not exist, or is not a folder",
            place=f"model.source: {folder}",
            fix="correct the path in params.yaml, or run `dvc pull` if DVC tracks it; a Hub id needs model.revision, a "
            "full commit hash (40 hex digits, under 'History' on the Hub)",
        )
    return folder


def _hash_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a model, by name, sorted. Hashing releases the GIL, so threads help."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file() and _matches(path.name, FILES))
        with ThreadPoolExecutor() as pool:
            return dict(zip(names, pool.map(lambda name: sha256_file(folder / name), names), strict=True))
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise JobError(problem, place=error.filename or folder, fix="make it readable, then run again") from error


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)


def _changed(path: Path, revision: str | None) -> InputError:
    """Return the error for a file that was changed, added or removed since the record was made."""
    fix = "undo the change, or run `dvc repro -f fetch` to accept it"
    if revision is not None:
        fix = f"delete {path.resolve()} and run `dvc repro -f fetch` to download it again"
    return InputError("is not the file that build/base.json records", place=path, fix=fix)


def _check_complete(folder: Path, names: Collection[str], source: str) -> None:
    """Check that a folder has a complete model with safetensors weights.

    Raises:
        InputError: something is missing or damaged, or the weights are in another format.
    """
    _check_names(names, source)
    weights = ["model.safetensors"] if "model.safetensors" in names else _shards(folder / INDEX)
    for name in weights:
        if name not in names:
            raise InputError(
                f"lacks {name}, which {INDEX} lists",
                place=f"model.source: {source}",
                fix="copy the model again, or use another revision",
            )
        _check_readable(folder / name)


def _check_names(names: Collection[str], source: str) -> None:
    """Check by the names of its files that a model has a configuration, a tokenizer and safetensors weights."""
    place = f"model.source: {source}"
    if "config.json" not in names:
        raise InputError("has no config.json", place=place, fix="use a model in the format of transformers")
    if not any(_matches(name, TOKENIZER) for name in names):
        fix = "copy one into the folder, or use a complete model"
        raise InputError(f"has no tokenizer file ({', '.join(TOKENIZER)})", place=place, fix=fix)
    if not {"model.safetensors", INDEX} & set(names):
        raise InputError(
            "has no model.safetensors (pickled weights, *.bin or *.pt, are refused: loading them can run code)",
            place=place,
            fix="use a revision with safetensors, or convert a copy that you trust with save_pretrained",
        )


def _shards(index: Path) -> list[str]:
    """Return the names of the weight shards that an index lists."""
    try:
        return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = "does not list the files of the weights"
        raise InputError(problem, place=index, fix="copy or download the model again") from error


def _check_readable(path: Path) -> None:
    """Check that a weight file is complete, and not the pointer that a clone without Git LFS has instead."""
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        problem = f"is not a complete safetensors file ({first_line(error)})"
        raise InputError(problem, place=path, fix="copy it again, or run `git lfs pull` in its folder") from error


def _check_blobs(folder: Path, files: dict[str, str]) -> None:
    """Check downloads by their sha256, as huggingface_hub does not. Its cache names large files by their sha256."""
    for name, sha256 in files.items():
        path = folder / name
        blob = path.readlink().name if path.is_symlink() else ""
        if re.fullmatch(r"[0-9a-f]{64}", blob) and blob != sha256:
            problem = f"was damaged during the download (its sha256 is {sha256})"
            raise JobError(problem, place=path.resolve(), fix="delete it and run again")
