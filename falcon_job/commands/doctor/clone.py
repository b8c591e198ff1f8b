"""Checks of the clone: git, DVC, machine settings, params.yaml and the base model."""

import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import constants

from falcon_job.commands.doctor.finding import Finding, Surroundings, problem
from falcon_job.commands.doctor.host import why_not_usable
from falcon_job.errors import InputError, MachineError, first_line
from falcon_job.machine import PREFIX, read_machine
from falcon_job.params import load_params
from falcon_job.sources.base_model import find


def check_git(here: Surroundings) -> Finding:
    """Check that git is installed and trusts the clone."""
    if not shutil.which("git"):
        return Finding("note", "not found, so a run cannot record its commit", "install git")
    if here.workspace is None:
        return Finding("ok", "found")
    root = here.workspace.root
    command = ["git", "-C", str(root), "rev-parse", "--git-dir"]
    asked = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})  # noqa: S603
    if "dubious ownership" in asked.stderr:
        found = f"does not trust {root}, which another user owns, so a run cannot record its commit"
        return Finding("note", found, f"run `git config --global --add safe.directory {root}`")
    if asked.returncode:
        raise InputError("is not a git repository, which DVC needs", place=root, fix="get it with `git clone`")
    return Finding("ok", "trusts the clone")


def check_dvc(here: Surroundings) -> Finding:
    """Check that DVC can open the clone and write to its cache."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if here.workspace is None:
        return Finding("ok", version("dvc"))
    try:
        with Repo(str(here.workspace.root)) as repo:
            cache = Path(repo.cache.local.path)
    except (DvcException, OSError) as error:
        fix = "correct what it names, or restore DVC's configuration with `git checkout .dvc`"
        raise InputError(f"cannot open this clone ({first_line(error)})", place="DVC", fix=fix) from error
    if reason := why_not_usable(cache):
        fix = "make it writable, or choose another with `dvc cache dir FOLDER`"
        raise MachineError(f"cannot be written ({reason})", place=f"The cache {cache}", fix=fix)
    return Finding("ok", f"{version('dvc')}, cache in {cache}")


def check_settings(here: Surroundings) -> Finding:
    """Check the FALCON_JOB_* variables."""
    machine = read_machine(here.workspace.root if here.workspace else Path.cwd())
    return Finding("ok", ", ".join(f"{PREFIX}{name.upper()}={value}" for name, value in machine.model_dump().items()))


def check_params(here: Surroundings) -> Finding:
    """Check the clone's params.yaml."""
    if here.workspace is None:
        return Finding(
            "note", f"{Path.cwd()} is not inside a clone", "run this inside a clone to check its params.yaml"
        )
    model = load_params(here.workspace.params).model
    return Finding("ok", f"{model.source} in {model.precision}, {here.workspace.params}")


def check_weights(here: Surroundings) -> Finding:
    """Check that the base model is complete on this machine, or can be downloaded. This does not use the network."""
    if here.workspace is None or here.params is None:
        return Finding("note", "not checked without a valid params.yaml", "see the line for params")
    model, workspace = here.params.model, here.workspace
    try:
        return Finding("ok", f"{model.source} in {find(model, workspace)}")
    except InputError as error:
        is_packed = workspace.path("data.dvc").is_file() and not workspace.data.exists()
        if is_packed and model.revision is None and workspace.is_watched(workspace.path(model.source)):
            return Finding("note", "data/ has not been pulled yet", "run `dvc pull`, or let `falcon-job run` do it")
        if model.revision is None:
            return problem(error)
    found = f"is not complete in {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        fix = "unset HF_HUB_OFFLINE, or copy the cache of a machine that has the model and set HF_HOME to the copy"
        raise MachineError(f"{found}, and HF_HUB_OFFLINE is set", place=model.source, fix=fix)
    found = f"{model.source} {found}, so the first run will download it"
    return Finding("note", found, "run `falcon-job fetch` to download it now")
