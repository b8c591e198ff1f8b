"""Where a run's checkpoints lie, so that a killed run goes on and a changed one starts afresh."""

import hashlib
import json
import logging
import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from ruamel.yaml import YAML

from falcon_job.files import read_json, write_json
from falcon_job.machine import Machine
from falcon_job.model.compute import ComputeSettings
from falcon_job.workspace import Workspace

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


def fingerprint(workspace: Workspace, stage: str) -> str:
    """Return a hash of all that the result of a stage depends on, as dvc.yaml lists it, and of the libraries."""
    pipeline = YAML(typ="safe").load(workspace.path("dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    params = YAML(typ="safe").load(workspace.params.read_text(encoding="utf-8"))
    digest = hashlib.sha256()
    for dependency in sorted(pipeline["deps"]):
        for file in _files(workspace.path(dependency)):
            digest.update(file.relative_to(workspace.root).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    settings = {key: _lookup(params, key) for key in pipeline["params"]}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    digest.update(json.dumps({name: version(name) for name in LIBRARIES}).encode())
    return digest.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _lookup(params: dict[str, object], key: str) -> object:
    value: object = params
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else None
    return value


def recall(folder: Path, settings: ComputeSettings, machine: Machine) -> ComputeSettings:
    """Return how to go on from the checkpoints in `folder`: what is not set now as they began, on the same kernel.

    Without any that is `settings`, which are kept as how they begin; and `settings` where their kernel is not in use.
    """
    path = folder / "machine.json"
    if not (path.is_file() and last_checkpoint(folder)):
        write_json(path, asdict(settings))
        return settings
    began = ComputeSettings(**read_json(path))
    same_kernel = began.attention == settings.attention or (began.attention == "sdpa" and machine.attention == "auto")
    if not same_kernel:
        return settings
    logger.info("what is not set is as when the checkpoints began")
    unset = {name: value for name, value in asdict(began).items() if getattr(machine, name) == "auto"}
    return replace(settings, **unset)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; one that a kill left half written is deleted."""
    steps = {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob("checkpoint-*")}
    for step in sorted(steps, reverse=True):
        if _is_whole(steps[step]):
            return steps[step]
        logger.warning("%s is half written: deleted", steps[step])
        shutil.rmtree(steps[step])
    return None


def forget(folder: Path) -> None:
    """Delete the checkpoints of a run that is done; what a tracker wrote beside them stays."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    (folder / "machine.json").unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        folder.rmdir()


def _is_whole(checkpoint: Path) -> bool:
    """Tell whether Trainer finished it: trainer_state.json is the last file it writes."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
