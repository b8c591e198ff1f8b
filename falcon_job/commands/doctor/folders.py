"""Folders that the job writes: space, permission, and whether what is compiled there can be loaded."""

import contextlib
import mmap
import os
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import constants

from falcon_job.commands.doctor.finding import Finding, Surroundings, note, ok, problem, readable
from falcon_job.commands.doctor.weights import bytes_to_download, is_to_download
from falcon_job.errors import first_line

LITTLE = 5e9
HUB_CACHE = Path(constants.HF_HUB_CACHE)


def check_disk(here: Surroundings) -> Finding:
    """Check the free space where outputs, weights and temporary files go."""
    places = {"HF_HOME": HUB_CACHE, "temporary folder": _temporary()}
    if here.workspace:
        places = {"clone": here.workspace.root, **places}
    free = {name: shutil.disk_usage(_nearest(folder)).free for name, folder in places.items()}
    found = "free: " + ", ".join(f"{readable(free[name])} in {folder} ({name})" for name, folder in places.items())
    wanted = bytes_to_download(here)
    if free["HF_HOME"] < wanted:
        return problem(
            f"{found}, and the model's weights need about {readable(wanted)}",
            "free space, or set HF_HOME to a folder on a larger disk",
        )
    if little := [name for name, size in free.items() if size < LITTLE]:
        return note(f"{found}, little in: {', '.join(little)}", "free space, or set HF_HOME or TMPDIR to a larger disk")
    return ok(found)


def check_folders(here: Surroundings) -> Finding:
    """Check that the clone and the caches can be written, and that compiled code in them can be loaded."""
    compiled = _compiled_folders(here)
    weights = {"HF_HOME": HUB_CACHE} if is_to_download(here) else {}
    folders = {**_needed_folders(here), **weights, **compiled}
    bad = {name: reason for name, folder in folders.items() if (reason := why_not_writable(folder))}
    if bad:
        found = "; ".join(f"{name}: {folders[name]} cannot be written ({reason})" for name, reason in bad.items())
        variables = [name for name in bad if name != "clone"]
        fixes = [
            *(["make the clone writable"] if "clone" in bad else []),
            *([f"set {', '.join(variables)} to writable folders"] if variables else []),
        ]
        vital = bad.keys() & (_needed_folders(here) | weights).keys()
        return (problem if vital else note)(found, " and ".join(fixes))
    if closed := {name: folder for name, folder in compiled.items() if _is_noexec(folder)}:
        found = "; ".join(f"{name}: {folder} is mounted noexec" for name, folder in closed.items())
        return note(
            f"{found}, so that compiled kernels cannot be loaded",
            f"mount it with exec (`docker run --tmpfs /tmp:exec`), or set {', '.join(closed)} to another folder",
        )
    return ok(f"writable: {', '.join(folders)}")


def why_not_writable(folder: Path) -> str | None:
    """Return why no file can be made in a folder, or in the one in which it would be made; None where one can.

    Tried, not read off its mode: that says nothing about root, or a read-only file system.
    """
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            return None
    except OSError as error:
        return error.strerror or first_line(error)


def _needed_folders(here: Surroundings) -> dict[str, Path]:
    """Return those without which no stage runs."""
    folders = {"clone": here.workspace.root} if here.workspace else {}
    with contextlib.suppress(ImportError):  # a line of its own check
        from dvc.dirs import site_cache_dir

        folders["DVC_SITE_CACHE_DIR"] = Path(site_cache_dir())
    return folders


def _compiled_folders(here: Surroundings) -> dict[str, Path]:
    """Return where compiled code goes, by the variable that says so; defaults as in Triton and our stages."""
    triton = os.environ.get("TRITON_CACHE_DIR") or os.path.expanduser("~/.triton/cache")  # noqa: PTH111 - never raises
    kernels = here.workspace.kernels if here.workspace else _temporary()
    inductor = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or kernels
    return {"TMPDIR": _temporary(), "TRITON_CACHE_DIR": Path(triton), "TORCHINDUCTOR_CACHE_DIR": Path(inductor)}


def _temporary() -> Path:
    """Return the temporary folder, also where tempfile finds none that can be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - only looked at


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.access(path, os.F_OK))


def _is_noexec(folder: Path) -> bool:
    """Tell whether a library in a folder could not be loaded: mapping its code is what a noexec mount refuses."""
    if not hasattr(mmap, "PROT_EXEC"):  # Windows
        return False
    with tempfile.TemporaryFile(dir=_nearest(folder)) as file:
        file.write(b"code")
        file.flush()
        try:
            mmap.mmap(file.fileno(), 4, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
        except PermissionError:
            return True
    return False
