"""Locks held by the kernel: gone with the process that holds them, however it ends. And what a killed DVC leaves."""

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
"""A DVC whose `run` was killed ends within this time, together with its stage."""


@contextmanager
def lock(workspace: Workspace, name: str) -> Iterator[None]:
    """Hold the clone's lock `name` (a stage, or `run`).

    Raises:
        JobError: another process holds it, or the clone is not writable.
    """
    path = workspace.scratch / "locks" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path, timeout=0)
        held.acquire()
    except Timeout:
        raise JobError(f"another `falcon-job {name}` is running in {workspace.root}: wait for it, or stop it") from None
    except OSError as error:
        raise JobError(f"{path} cannot be locked ({error.strerror}): make {workspace.root} writable") from error
    try:
        yield
    finally:
        held.release()


def clear_dvc_locks(workspace: Workspace) -> None:
    """Forget which files a killed DVC was at work on.

    DVC notes its process id in .dvc/tmp/rwlock. In a new container, or after a reboot, that number soon belongs to
    another process, and DVC would wait for it for ever.

    Raises:
        JobError: a DVC is at work here.
    """
    path = workspace.path(".dvc/tmp/rwlock")
    give_up = time.monotonic() + DVC_PATIENCE_SECONDS
    while noted := _noted_processes(path):
        alive = sorted(pid for pid in noted if _is_older(pid, path))
        if not alive:
            path.unlink(missing_ok=True)
            return
        if time.monotonic() > give_up:
            raise JobError(f"DVC is at work in {workspace.root} (process {alive[0]}): wait for it, or stop it")
        time.sleep(0.1)


def _noted_processes(path: Path) -> set[int]:
    """Return the process ids in DVC's file; one that a kill left half written is deleted."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        readers = [reader for readers in noted.get("read", {}).values() for reader in readers]
        return {int(holder["pid"]) for holder in [*readers, *noted.get("write", {}).values()] if holder}
    except FileNotFoundError:
        return set()
    except (ValueError, LookupError, AttributeError, TypeError):
        path.unlink(missing_ok=True)
        return set()


def _is_older(pid: int, path: Path) -> bool:
    """Tell whether a process was there when the file was written, and still is."""
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return bool(alive and process.create_time() <= path.stat().st_mtime)
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
