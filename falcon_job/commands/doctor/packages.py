"""Python, and the packages that pyproject.toml needs and requirements.lock pins."""

import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from falcon_job.commands.doctor.finding import Finding, Surroundings, note, ok, problem, renew_environment

OLDEST = Version("3.11")
SHOWN = 3


def check_python(here: Surroundings) -> Finding:
    """Check the version of Python."""
    found = f"{platform.python_version()}, {sys.executable}"
    if Version(platform.python_version()) < OLDEST:
        return problem(found, f"use Python {OLDEST} or newer: `make env PYTHON=python{OLDEST}`")
    return ok(found)


def check_packages(here: Surroundings) -> Finding:
    """Compare what is installed with what the job needs, and with what it was tested with."""
    if here.workspace is None:
        return note("not compared, as no clone is around", "run this inside a clone")
    lock = _pins(here.workspace.path("requirements.lock"))
    # bitsandbytes has a check of its own: not every run needs it
    needed = [each for each in _needs(here.workspace.path("pyproject.toml")) if each.name != "bitsandbytes"]
    if lacking := _differences(needed):
        return problem(f"what the job needs is missing or too old: {lacking}", renew_environment())
    if differing := _differences(lock):
        return note(f"other versions than requirements.lock names: {differing}", renew_environment())
    return ok(f"the {len(lock)} of requirements.lock")


def _pins(lock: Path) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in lock.read_text(encoding="utf-8").splitlines())
    return _applying(line for line in lines if line and not line.startswith("-"))


def _needs(project: Path) -> list[Requirement]:
    if not project.is_file():
        return []
    import tomllib  # not in the Pythons that check_python complains of

    return _applying(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"])


def _applying(lines: Iterable[str]) -> list[Requirement]:
    """Return the requirements whose environment marker, if any, is true here."""
    requirements = [Requirement(line) for line in lines]
    return [each for each in requirements if each.marker is None or each.marker.evaluate()]


def _differences(wanted: list[Requirement]) -> str:
    """Return the first differences in words, "" where there are none."""
    found = [difference for each in wanted if (difference := _difference(each))]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def _difference(wanted: Requirement) -> str | None:
    try:
        installed = version(wanted.name)
    except PackageNotFoundError:
        return f"no {wanted.name}"
    if wanted.specifier.contains(installed, prereleases=True):
        return None
    return f"{wanted.name} {installed} (not {wanted.specifier})"
