"""Locks of a clone: ours, which end with the process that holds them, and those that a killed DVC leaves behind."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from falcon_job.errors import JobError
from falcon_job.workspace import Workspace

DVC_PATIENCE_SECONDS = 5.0
"""How long to wait for a DVC whose `run` was killed: it ends soon, together with its stage."""


@contextmanager
def lock(workspace: Workspace, name: str) -> Iterator[None]:
    """Hold the clone's lock `name` (a stage, or `run`).

    The operating system releases it when the process ends, even if it is killed.

    Raises:
        JobError: another process holds it, or the clone is not writable.
    """
    path = workspace.scratch / "locks" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path, timeout=0)
        held.acquire()
    except Timeout:
        raise JobError(
            f"another `falcon-job {name}` is running in {workspace.root}", fix="wait for it, or stop it"
        ) from None
    except OSError as error:
        raise JobError(
            f"cannot be locked ({error.strerror})", place=path, fix=f"make {workspace.root} writable"
        ) from error
    try:
        yield
    finally:
        held.release()


def clear_dvc_locks(workspace: Workspace) -> None:
    """Remove the locks that a killed DVC has left.

    DVC writes its process id to .dvc/tmp/rwlock. In a new container, or after a reboot, that id soon belongs to another
    process, and DVC would refuse to work as long as that one lives. So an id counts only if its process is older than
    the file.

    Raises:
        JobError: a DVC is running in this clone.
    """
    path = workspace.path(".dvc/tmp/rwlock")
    give_up = time.monotonic() + DVC_PATIENCE_SECONDS
    while pids := _locking_pids(path):
        alive = sorted(pid for pid in pids if _holds(pid, path))
        if not alive:
            path.unlink(missing_ok=True)
            return
        if time.monotonic() > give_up:
            raise JobError(f"DVC is running in {workspace.root} (process {alive[0]})", fix="wait for it, or stop it")
        time.sleep(0.1)


def _locking_pids(path: Path) -> set[int]:
    """Return the process ids in DVC's lock file; delete the file if a kill has left it half written."""
    try:
        locks = json.loads(path.read_text(encoding="utf-8"))
        readers = [reader for readers in locks.get("read", {}).values() for reader in readers]
        return {int(holder["pid"]) for holder in [*readers, *locks.get("write", {}).values()] if holder}
    except FileNotFoundError:
        return set()
    except (ValueError, LookupError, AttributeError, TypeError):
        path.unlink(missing_ok=True)
        return set()


def _holds(pid: int, path: Path) -> bool:
    """Tell whether the process that wrote its id to the file is still alive, and not a later one with the same id."""
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return bool(alive and process.create_time() <= path.stat().st_mtime)
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
