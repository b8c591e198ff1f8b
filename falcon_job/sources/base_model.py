"""The base model, pinned: build/base.json names its source, revision and the sha256 of its files.

`pin` makes that record in the fetch stage, `locate` gives every later stage the folder that matches it. Only
safetensors weights, configuration and tokenizer files count: never code (*.py), never pickles (*.bin, *.pt).
"""

import json
import logging
import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from falcon_job.errors import InputError, JobError
from falcon_job.files import sha256_file, write_text
from falcon_job.params import ModelParams, Sha256
from falcon_job.sources.hub import download_snapshot
from falcon_job.sources.tracking import is_watched
from falcon_job.workspace import Workspace

logger = logging.getLogger(__name__)

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
"""Patterns of the files that are fetched and hashed, at the root of a model's folder."""


class PinnedModel(BaseModel):
    """A base model whose every file is known by its hash: the content of build/base.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    """As in params: a folder, or a Hub id when `revision` is set."""
    revision: str | None
    files: dict[str, Sha256]
    """The sha256 of each file, by name, sorted."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read build/base.json.

        Raises:
            InputError: it is missing or damaged.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise InputError(f"{path} is missing: run `falcon-job fetch` first") from None
        except ValidationError as error:
            raise InputError(f"{path} is damaged: run `dvc repro -f fetch` to write it anew") from error

    def write(self, path: Path) -> None:
        """Write build/base.json, whole or not at all."""
        write_text(path, self.model_dump_json(indent=2) + "\n")


def pin(model: ModelParams, workspace: Workspace) -> PinnedModel:
    """Return the record of a base model, once it is downloaded where need be and known to be whole.

    Raises:
        InputError: there is no such model, or it lacks its configuration, tokenizer or safetensors weights.
        JobError: the network failed, or a download is damaged.
    """
    folder = _folder(model.source, model.revision, workspace)
    files = _hash_files(folder)
    if model.revision is not None:
        _check_blobs(folder, files)
    elif not is_watched(folder, workspace):
        logger.warning("%s is outside data/: DVC does not watch it, though every stage checks its hashes", folder)
    check_whole(folder, files, model.source)
    return PinnedModel(source=model.source, revision=model.revision, files=files)


def locate(workspace: Workspace, pinned: PinnedModel | None = None) -> Path:
    """Return the folder of a base model, every file checked against its record (default: build/base.json).

    What the Hub cache lacks is downloaded, unless HF_HUB_OFFLINE is set.

    Raises:
        InputError: build/base.json is missing, or a file of the model is not the one it records.
        JobError: the network failed, or offline and not in the cache.
    """
    pinned = pinned or PinnedModel.read(workspace.base)
    folder = _folder(pinned.source, pinned.revision, workspace)
    found = _hash_files(folder)
    for name in sorted(found.keys() | pinned.files):
        if found.get(name) != pinned.files.get(name):
            raise _changed(folder / name, pinned.revision)
    return folder


def _changed(path: Path, revision: str | None) -> InputError:
    problem = f"{path} is not the file that build/base.json records"
    if revision is not None:
        return InputError(f"{problem}: delete {path.resolve()} and run `dvc repro -f fetch` to download it again")
    return InputError(f"{problem}: restore it, or run `dvc repro -f fetch` to accept the change")


def _folder(source: str, revision: str | None, workspace: Workspace) -> Path:
    if revision is not None:
        return download_snapshot(source, revision, FILES)
    folder = workspace.path(source)
    if not folder.is_dir():
        raise InputError(
            f"model.source: there is no folder {folder}: correct the path in params.yaml, or run `dvc pull` "
            "for tracked data; a Hub id needs model.revision, a full commit (40 hex digits, under 'History')"
        )
    return folder


def _hash_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file that matters, by name, sorted. Hashing frees the GIL: threads help."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file() and _matches(path.name, FILES))
        with ThreadPoolExecutor() as pool:
            return dict(zip(names, pool.map(lambda name: sha256_file(folder / name), names), strict=True))
    except OSError as error:
        raise JobError(f"{error.filename}: {error.strerror}: make it readable, then run again") from error


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_whole(folder: Path, names: Collection[str], source: str) -> None:
    """Check that a folder's file names are those of a whole model in safetensors.

    Raises:
        InputError: something is missing, or the weights are of another kind.
    """
    if "config.json" not in names:
        raise InputError(f"model.source: {source} has no config.json: name a model in the format of transformers")
    if not any(_matches(name, TOKENIZER) for name in names):
        raise InputError(
            f"model.source: {source} has no tokenizer ({', '.join(TOKENIZER)}): copy it in, or name a whole model"
        )
    for name in _weight_files(folder, names, source):
        if name not in names:
            raise InputError(
                f"model.source: {source} lacks {name}, which model.safetensors.index.json names: "
                "copy the model again, or name another revision"
            )
        _check_readable(folder / name)


def _weight_files(folder: Path, names: Collection[str], source: str) -> list[str]:
    """Return the names of the files that transformers reads weights from."""
    if "model.safetensors" in names:
        return ["model.safetensors"]
    if "model.safetensors.index.json" in names:
        return _shards(folder / "model.safetensors.index.json")
    raise InputError(
        f"model.source: {source} has no model.safetensors; pickled weights (*.bin, *.pt) are refused, since "
        "reading them runs their code: name a revision with safetensors, or convert a copy you trust with "
        "save_pretrained"
    )


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is no index of safetensors shards: copy or download the model again") from error


def _check_readable(path: Path) -> None:
    """Find a file cut short, or the pointer of a clone without Git LFS, before a stage needs it."""
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise InputError(
            f"{path} is no whole safetensors file ({error}): copy it again, or run `git lfs pull` there"
        ) from error


def _check_blobs(folder: Path, files: dict[str, str]) -> None:
    """Check what huggingface_hub does not: a big file's blob bears the Hub's sha256 of it."""
    for name, sha256 in files.items():
        path = folder / name
        blob = path.readlink().name if path.is_symlink() else ""
        if re.fullmatch(r"[0-9a-f]{64}", blob) and blob != sha256:
            raise JobError(f"{path.resolve()} was damaged on the way (its sha256 is {sha256}): delete it and run again")
