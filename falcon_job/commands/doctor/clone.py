"""The clone, as git and DVC see it, its params.yaml, and the variables of this machine."""

import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from falcon_job.commands.doctor.finding import Finding, Surroundings, note, ok, problem, renew_environment
from falcon_job.commands.doctor.folders import why_not_writable
from falcon_job.errors import InputError, first_line
from falcon_job.machine import read_machine
from falcon_job.params import load_params
from falcon_job.workspace import Workspace


def check_git(here: Surroundings) -> Finding:
    """Check that git is there and trusts the clone."""
    if not shutil.which("git"):
        return note("not found, so that a run cannot record its commit", "install git")
    version = _git("--version").stdout.strip().removeprefix("git version ")
    if here.workspace is None:
        return ok(version)
    root = here.workspace.root
    asked = _git("-C", str(root), "rev-parse", "--git-dir")
    if asked.returncode == 0:
        return ok(version)
    if "dubious ownership" in asked.stderr:
        return note(
            f"{version} does not trust {root}, which another user owns: a run cannot record its commit",
            f"`git config --global --add safe.directory {root}`",
        )
    return problem(f"{root} is no git repository, which DVC needs", "get the job with `git clone`")


def _git(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["git", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})  # noqa: S603


def check_dvc(here: Surroundings) -> Finding:
    """Check that DVC opens the clone and can write its cache."""
    try:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
    except ImportError as error:
        return problem(f"cannot be imported ({first_line(error)})", renew_environment())
    version = metadata.version("dvc")
    if here.workspace is None:
        return ok(version)
    try:
        with Repo(str(here.workspace.root)) as repo:
            cache = Path(repo.cache.local.path)
    except (DvcException, OSError) as error:
        return problem(
            f"{version} cannot open this clone ({first_line(error)})",
            "mend that; `git checkout .dvc` restores its configuration",
        )
    if reason := why_not_writable(cache):
        return problem(f"its cache {cache} cannot be written ({reason})", "make it writable, or `dvc cache dir FOLDER`")
    return ok(f"{version}, cache in {cache}")


def check_settings(here: Surroundings) -> Finding:
    """Check the FALCON_JOB_* variables."""
    try:
        settings = read_machine(here.workspace.root if here.workspace else Path.cwd()).model_dump()
    except InputError as error:
        return problem(_in_one_line(error), "correct it in the environment, or in .env")
    return ok(", ".join(f"FALCON_JOB_{name.upper()}={value}" for name, value in settings.items()))


def check_params(here: Surroundings) -> Finding:
    """Check params.yaml of the clone."""
    try:
        workspace = Workspace.find()
    except InputError:
        return note(f"no dvc.yaml in {Path.cwd()} or any folder above", "run this inside a clone to check it, too")
    try:
        model = load_params(workspace.params).model
    except InputError as error:
        return problem(_in_one_line(error), f"correct {workspace.params}, or write one with `falcon-job preset demo`")
    return ok(f"{model.source} in {model.precision}, {workspace.params}")


def _in_one_line(error: InputError) -> str:
    head, *rest = (line.strip() for line in str(error).splitlines())
    return f"{head}: {'; '.join(rest)}" if rest else head
