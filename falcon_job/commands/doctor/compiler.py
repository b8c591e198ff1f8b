"""A C compiler and Python's headers: Triton compiles a launcher for each of its kernels at first use."""

import ctypes
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from falcon_job.commands.doctor.finding import Finding, Surroundings, note, ok
from falcon_job.errors import first_line

SOURCE = """#include <Python.h>
int is_running(void) { return Py_IsInitialized(); }
"""
COMPILERS = ("gcc", "clang", "cc")
SECONDS = 60


def check_compiler(here: Surroundings) -> Finding:
    """Compile a piece of C that includes Python.h, load it and call it."""
    try:
        command = _compiler()
    except ValueError as error:
        return _slower(f"CC cannot be read ({error})", "correct CC, or unset it")
    if not command:
        return _slower("no C compiler", "install one, `apt-get install gcc libc6-dev`, or name it in CC")
    if not shutil.which(command[0]):
        return _slower(f"CC names {command[0]}, which is not found", "correct CC, or unset it")
    with tempfile.TemporaryDirectory() as folder:
        return _try(command, Path(folder))


def _try(command: list[str], folder: Path) -> Finding:
    source, library = folder / "probe.c", folder / "probe.so"
    source.write_text(SOURCE, encoding="utf-8")
    options = ["-shared", "-fPIC", "-I", _headers(), str(source), "-o", str(library)]
    compiled = subprocess.run(  # noqa: S603 - the user's own compiler
        [*command, *options], capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "LC_ALL": "C"}
    )
    if re.search(r"Python\.h(: No such file|' file not found)", compiled.stderr):
        return _slower(f"{command[0]} finds no Python.h in {_headers()}", "`apt-get install python3-dev`")
    if compiled.returncode:
        said = next((line for line in compiled.stderr.splitlines() if "error" in line), compiled.stderr.strip())
        return _slower(
            f"{command[0]} fails ({said})", "mend it, `apt-get install gcc libc6-dev`, or name another in CC"
        )
    try:
        ctypes.PyDLL(str(library)).is_running()
    except OSError as error:
        return _slower(f"what {command[0]} makes cannot be loaded ({first_line(error)})", "see folders")
    return ok(f"{shutil.which(command[0])}, with Python's headers")


def _slower(found: str, fix: str) -> Finding:
    return note(f"{found}, so no fused attention kernels on a GPU", fix)


def _compiler() -> list[str]:
    """Return the command that Triton would take; empty without one."""
    if named := shlex.split(os.environ.get("CC", "")):
        return named
    return next(([name] for name in COMPILERS if shutil.which(name)), [])


def _headers() -> str:
    scheme = sysconfig.get_default_scheme()
    # Debian's default says /usr/local, where its headers are not; Triton knows that, too
    return sysconfig.get_path("include", "posix_prefix" if scheme == "posix_local" else scheme)
