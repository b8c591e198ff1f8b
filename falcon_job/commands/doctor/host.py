"""Checks of memory, disks and the folders that the job writes to."""

import mmap
import os
import shutil
import tempfile
from pathlib import Path

import psutil
from huggingface_hub import constants

from falcon_job.commands.doctor.finding import Finding, Surroundings, gigabytes
from falcon_job.errors import InputError, first_line
from falcon_job.sources.base_model import find

LITTLE_MEMORY = 4e9
LITTLE_SHARED_MEMORY = 256e6
LITTLE_DISK = 5e9
DISK_FOR_WEIGHTS = 20e9  # Falcon-7B takes 14 GB
GPU_CACHES = {"TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"}
ROOT = Path("/")


def check_memory(here: Surroundings, root: Path = ROOT) -> Finding:
    """Check the available memory, which a container's control group (version 2) may limit."""
    total, available = psutil.virtual_memory()[:2]
    limit = root / "sys/fs/cgroup/memory.max"
    if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()) != "max":
        total, available = min(total, int(text)), min(available, int(text))
    found = f"{gigabytes(available)} of {gigabytes(total)} available"
    if available < LITTLE_MEMORY:
        return Finding("note", found, "stop other programs, or give the container at least 4 GB")
    return Finding("ok", found)


def check_shared_memory(here: Surroundings, root: Path = ROOT) -> Finding:
    """Check the shared memory through which DataLoader workers pass batches."""
    folder = root / "dev/shm"
    if not folder.is_dir():
        return Finding("ok", "not used on this system")
    size = shutil.disk_usage(folder).total
    if size < LITTLE_SHARED_MEMORY:
        return Finding("note", f"only {gigabytes(size)} in /dev/shm", "start the container with `--shm-size 8g`")
    return Finding("ok", f"{gigabytes(size)} in /dev/shm")


def check_disk(here: Surroundings) -> Finding:
    """Check the free space for outputs, weights and temporary files."""
    folders = {name: folder for name, folder in _written_folders(here).items() if name not in GPU_CACHES}
    free = {name: shutil.disk_usage(_existing(folder)).free for name, folder in folders.items()}
    found = ", ".join(f"{gigabytes(size)} free in {folders[name]} ({name})" for name, size in free.items())
    wanted = {name: DISK_FOR_WEIGHTS if name == "HF_HOME" else LITTLE_DISK for name in free}
    if little := [f"{gigabytes(wanted[name])} in {name}" for name in free if free[name] < wanted[name]]:
        fix = f"free space (at least {', '.join(little)}), or set the variable to a folder on a larger disk"
        return Finding("note", found, fix)
    return Finding("ok", found)


def check_folders(here: Surroundings) -> Finding:
    """Check that the job can write to its folders, and load compiled code from them."""
    folders = _written_folders(here)
    if bad := {name: reason for name, folder in folders.items() if (reason := why_not_usable(folder))}:
        found = "; ".join(f"{name}: {folders[name]} cannot be written ({reason})" for name, reason in bad.items())
        fix = "make them writable, or set the variables to other folders"
        return Finding("problem" if bad.keys() - GPU_CACHES else "note", found, fix)
    code = {name: folder for name, folder in folders.items() if name in {"TMPDIR", *GPU_CACHES}}
    if closed := [f"{name}: {folder}" for name, folder in code.items() if why_not_usable(folder, for_code=True)]:
        fix = "mount with exec (`docker run --tmpfs /tmp:exec`), or set the variables to other folders"
        return Finding("note", f"mounted noexec, so compiled kernels cannot be loaded: {'; '.join(closed)}", fix)
    return Finding("ok", f"writable: {', '.join(folders)}")


def _written_folders(here: Surroundings) -> dict[str, Path]:
    """Return the folders that the job writes to, by the variable that sets them."""
    from dvc.dirs import site_cache_dir

    folders = {"TMPDIR": Path(tempfile.gettempdir()), "DVC_SITE_CACHE_DIR": Path(site_cache_dir())}
    defaults = {"TRITON_CACHE_DIR": os.path.expanduser("~/.triton/cache")}  # noqa: PTH111 - never raises
    if here.workspace:
        folders["the clone"] = here.workspace.root
        defaults["TORCHINDUCTOR_CACHE_DIR"] = str(here.workspace.kernels)
    if _must_download(here):
        folders["HF_HOME"] = Path(constants.HF_HUB_CACHE)
    return folders | {name: Path(os.environ.get(name) or default) for name, default in defaults.items()}


def _must_download(here: Surroundings) -> bool:
    """Tell whether the base model still has to be downloaded."""
    if here.workspace and here.params and here.params.model.revision is not None:
        try:
            find(here.params.model, here.workspace)
        except InputError:
            return True
    return False


def why_not_usable(folder: Path, *, for_code: bool = False) -> str | None:
    """Return why a file cannot be created in a folder or, with `for_code`, mapped as code; None if it can.

    This tries it instead of reading the folder's mode, which says nothing about root or a read-only file system. If the
    folder does not exist, it tries the nearest one above that does.
    """
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            file.write(b"code")
            file.flush()
            if for_code and hasattr(mmap, "PROT_EXEC"):  # not on Windows
                mmap.mmap(file.fileno(), 4, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    except OSError as error:
        return error.strerror or first_line(error)
    return None


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.access(path, os.F_OK))
