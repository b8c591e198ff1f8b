"""Checks of the Python packages and of the C compiler that Triton calls."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement

from falcon_job.commands.doctor.finding import Finding, Surroundings, reinstall
from falcon_job.errors import MachineError, first_line

SHOWN = 3
COMPILERS = ("gcc", "clang", "cc")


def check_packages(here: Surroundings) -> Finding:
    """Compare the installed packages with pyproject.toml (needed) and requirements.lock (tested)."""
    if here.workspace is None:
        return Finding("note", "not compared outside a clone", "run this inside a clone")
    project = tomllib.loads(here.workspace.path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    # bitsandbytes has a check of its own: not every run needs it
    needed = [line for line in project["dependencies"] if not line.startswith("bitsandbytes")]
    if different := _differences(needed):
        raise MachineError(f"Packages are missing or too old ({different})", fix=reinstall())
    lock = here.workspace.path("requirements.lock").read_text(encoding="utf-8")
    if different := _differences(re.findall(r"^\w[^#\n]*", lock, re.MULTILINE)):
        return Finding("note", f"versions differ from requirements.lock ({different})", reinstall())
    return Finding("ok", f"as in requirements.lock, for Python {platform.python_version()}")


def _differences(lines: Iterable[str]) -> str:
    """Describe the first requirements that are not met here; "" if all are."""
    found = [difference for line in lines if (difference := _difference(Requirement(line)))]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def _difference(wanted: Requirement) -> str | None:
    if wanted.marker and not wanted.marker.evaluate():
        return None
    try:
        installed = version(wanted.name)
    except PackageNotFoundError:
        return f"no {wanted.name}"
    met = wanted.specifier.contains(installed, prereleases=True)
    return None if met else f"{wanted.name} {installed} instead of {wanted.specifier}"


def check_compiler(here: Surroundings) -> Finding:
    """Check that the C compiler can include Python.h, as Triton does when it first uses a kernel."""
    command = shlex.split(os.environ.get("CC", "")) or [next(filter(shutil.which, COMPILERS), COMPILERS[0])]
    if said := _why_not_compiling(command):
        found = f"{command[0]} fails ({said}), so fused attention kernels for a GPU cannot be compiled"
        return Finding("note", found, "run `apt-get install gcc libc6-dev python3-dev`, or set CC to another compiler")
    return Finding("ok", f"{shutil.which(command[0])}, with Python's headers")


def _why_not_compiling(command: list[str]) -> str | None:
    """Return the compiler's error for a small extension module; None if it compiles."""
    headers = sysconfig.get_path("include", "posix_prefix")  # Debian's own scheme names a folder without headers
    with tempfile.TemporaryDirectory() as folder:
        options = ["-shared", "-fPIC", "-I", headers, "-x", "c", "-", "-o", f"{folder}/probe.so"]
        try:
            done = subprocess.run([*command, *options], input="#include <Python.h>", capture_output=True, text=True)  # noqa: S603
        except OSError as error:
            return first_line(error)
    lines = done.stderr.splitlines() or ["no message"]
    return next((line for line in lines if "error" in line), lines[0]) if done.returncode else None
