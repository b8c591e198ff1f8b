"""The clone as git and DVC see it, its params.yaml, its base model, and the variables of this machine."""

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
    """Check that git is there and trusts the clone."""
    if not shutil.which("git"):
        return Finding("note", "not found, so a run cannot record its commit", "install git")
    if here.workspace is None:
        return Finding("ok", "found")
    root = here.workspace.root
    command = ["git", "-C", str(root), "rev-parse", "--git-dir"]
    asked = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})  # noqa: S603
    if "dubious ownership" in asked.stderr:
        found = f"does not trust {root}, which another user owns, so a run cannot record its commit"
        return Finding("note", found, f"`git config --global --add safe.directory {root}`")
    if asked.returncode:
        raise InputError("is not a git repository, which DVC needs", place=root, fix="get the job with `git clone`")
    return Finding("ok", "trusts the clone")


def check_dvc(here: Surroundings) -> Finding:
    """Check that DVC opens the clone and can write its cache."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if here.workspace is None:
        return Finding("ok", version("dvc"))
    try:
        with Repo(str(here.workspace.root)) as repo:
            cache = Path(repo.cache.local.path)
    except (DvcException, OSError) as error:
        fix = "correct what it names; `git checkout .dvc` restores DVC's configuration"
        raise InputError(f"cannot open this clone ({first_line(error)})", fix=fix) from error
    if reason := why_not_usable(cache):
        fix = "make it writable, or choose another with `dvc cache dir FOLDER`"
        raise MachineError(f"cannot be written ({reason})", place=f"the cache {cache}", fix=fix)
    return Finding("ok", f"{version('dvc')}, cache in {cache}")


def check_settings(here: Surroundings) -> Finding:
    """Check the FALCON_JOB_* variables."""
    machine = read_machine(here.workspace.root if here.workspace else Path.cwd())
    return Finding("ok", ", ".join(f"{PREFIX}{name.upper()}={value}" for name, value in machine.model_dump().items()))


def check_params(here: Surroundings) -> Finding:
    """Check params.yaml of the clone."""
    if here.workspace is None:
        return Finding(
            "note", f"{Path.cwd()} is not inside a clone", "run this inside a clone to check its params.yaml"
        )
    model = load_params(here.workspace.params).model
    return Finding("ok", f"{model.source} in {model.precision}, {here.workspace.params}")


def check_weights(here: Surroundings) -> Finding:
    """Check that the base model is here and complete, or can be downloaded. The network is not used."""
    if here.workspace is None or here.params is None:
        return Finding("note", "not looked for without a valid params.yaml", "see params")
    model, workspace = here.params.model, here.workspace
    try:
        return Finding("ok", f"{model.source} in {find(model, workspace)}")
    except InputError as error:
        is_packed = workspace.path("data.dvc").is_file() and not workspace.data.exists()
        if is_packed and model.revision is None and workspace.is_watched(workspace.path(model.source)):
            return Finding("note", "data/ is not unpacked yet", "`falcon-job run` unpacks it, or `dvc pull` now")
        if model.revision is None:
            return problem(error)
    found = f"{model.source} is not complete in {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        fix = "unset it, or copy the cache of a machine that has the model and name it in HF_HOME"
        raise MachineError(f"{found}, and HF_HUB_OFFLINE is set", fix=fix)
    return Finding("note", f"{found}, so the first run downloads it", "`falcon-job fetch` downloads it now")
