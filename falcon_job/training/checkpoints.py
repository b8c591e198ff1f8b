"""The checkpoints of a run: a killed run resumes from them, and a changed run starts from the beginning."""

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
    """Return a hash of all that a stage's result depends on: its deps and params in dvc.yaml, and library versions."""
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
    """Return the files in a folder (or the file itself), without bytecode, which DVC ignores, too."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _lookup(params: dict[str, object], key: str) -> object:
    value: object = params
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else None
    return value


def resume_settings(folder: Path, settings: ComputeSettings, machine: Machine) -> ComputeSettings:
    """Return the settings to train with: those of the checkpoints in `folder` if they can be used, else `settings`.

    A resumed run keeps the settings that it started with, so that its result is the same, bit for bit. Settings that
    were resolved from `auto` then are not resolved again. Variables that are set now take precedence. Example: a run
    started with packs of 8,192 tokens and was killed. Now less memory is free, and `auto` would choose 4,096, but the
    run continues with 8,192.

    Without checkpoints, `settings` are written to compute.json for a later resume. They are also returned if the
    checkpoints used another attention kernel, which this machine does not support or the user has overridden.
    """
    path = folder / "compute.json"
    if not (path.is_file() and last_checkpoint(folder)):
        write_json(path, asdict(settings))
        return settings
    began = ComputeSettings(**read_json(path))
    same_kernel = began.attention == settings.attention or (began.attention == "sdpa" and machine.attention == "auto")
    if not same_kernel:
        return settings
    logger.info("resuming with the machine settings of the checkpoints")
    unset = {name: value for name, value in asdict(began).items() if getattr(machine, name) == "auto"}
    return replace(settings, **unset)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, if any. Newer ones that a killed run left incomplete are deleted."""
    steps = {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob("checkpoint-*")}
    for step in sorted(steps, reverse=True):
        if _is_complete(steps[step]):
            return steps[step]
        logger.warning("deleting %s, which is incomplete", steps[step])
        shutil.rmtree(steps[step])
    return None


def delete_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a finished run, but keep what a tracker wrote to the same folder."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    (folder / "compute.json").unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        folder.rmdir()


def _is_complete(checkpoint: Path) -> bool:
    """Return whether Trainer finished writing a checkpoint: it writes trainer_state.json last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
