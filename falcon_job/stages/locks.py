"""Locks of a clone: ours, which are released when their process ends, and those that a killed DVC leaves behind."""

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
"""How long to wait for a DVC process whose `falcon-job run` was killed. It ends soon, together with its stage."""


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
            f"is in use by another `falcon-job {name}`", place=workspace.root, fix="wait for it, or stop it"
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
    """Remove the locks that a killed DVC has left behind.

    DVC writes its process id to .dvc/tmp/rwlock. In a new container, or after a reboot, that id may belong to another
    process, and DVC would refuse to work while that process runs. So an id counts only if its process started before
    the file was written.

    Raises:
        JobError: DVC is running in this clone.
    """
    path = workspace.path(".dvc/tmp/rwlock")
    give_up = time.monotonic() + DVC_PATIENCE_SECONDS
    while pids := _locking_pids(path):
        alive = sorted(pid for pid in pids if _holds(pid, path))
        if not alive:
            path.unlink(missing_ok=True)
            return
        if time.monotonic() > give_up:
            raise JobError(
                f"is in use by DVC (process {alive[0]})", place=workspace.root, fix="wait for it, or stop it"
            )
        time.sleep(0.1)


def _locking_pids(path: Path) -> set[int]:
    """Return the process ids in DVC's lock file. Delete the file if it is damaged, as a killed DVC may leave it."""
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
    """Tell whether the process that wrote `pid` to the file is still alive. A later one with the same id is ignored."""
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return bool(alive and process.create_time() <= path.stat().st_mtime)
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
