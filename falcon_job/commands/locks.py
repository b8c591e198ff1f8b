"""Locks held by the kernel: gone with the process that holds them, however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from falcon_job.errors import JobError
from falcon_job.workspace import Workspace


@contextmanager
def lock(workspace: Workspace, name: str) -> Iterator[None]:
    """Hold the clone's lock `name` (a stage, or `run`).

    Raises:
        JobError: another process holds it.
    """
    path = workspace.scratch / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise JobError(f"another `falcon-job {name}` is running in {workspace.root}: wait for it, or stop it") from None
