"""Memory and cores, as a container or a scheduler limits them."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from falcon_job.commands.doctor.finding import Finding, Surroundings, note, ok, readable

LITTLE_MEMORY = 4e9
LITTLE_SHARED_MEMORY = 256e6
ROOT = Path("/")


def check_memory(here: Surroundings, root: Path = ROOT) -> Finding:
    """Check the memory of the host, and of the container where that is less."""
    memory = psutil.virtual_memory()
    available = memory.available
    found = f"{readable(memory.total)}, {readable(available)} available"
    limit = memory_limit(root)
    if limit is not None and limit < memory.total:
        available = min(available, limit)
        found += f", at most {readable(limit)} for this container or job"
    if available < LITTLE_MEMORY:
        return note(found, "end other programs, or give the container or job more: less than 4 GB is soon too little")
    return ok(found)


def check_shared_memory(here: Surroundings, root: Path = ROOT) -> Finding:
    """Check the shared memory through which data loaders hand on batches."""
    folder = root / "dev" / "shm"
    if not folder.is_dir():
        return ok("no /dev/shm on this system")
    size = psutil.disk_usage(str(folder)).total
    if size < LITTLE_SHARED_MEMORY:
        return note(f"{readable(size)} in /dev/shm, Docker's default", "start the container with `--shm-size 8g`")
    return ok(f"{readable(size)} in /dev/shm")


def check_cores(here: Surroundings, root: Path = ROOT) -> Finding:
    """Check how many cores this process may use; a quota is one that torch does not see."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{usable} usable"
    quota = cpu_quota(root)
    if quota is None or quota >= usable:
        return ok(found)
    found += f", of which this container or job may use {quota:g} at a time"
    if "OMP_NUM_THREADS" in os.environ:
        return ok(found)
    return note(found, f"set OMP_NUM_THREADS={max(1, int(quota))}, lest {usable} threads wait for each other")


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the lowest limit of this process's control groups in bytes; None without one."""
    texts = [*_read("", "memory.max", root), *_read("memory", "memory.limit_in_bytes", root)]
    return min((int(text) for text in texts if text != "max"), default=None)


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the lowest quota of this process's control groups in cores; None without one."""
    periods = _read("cpu", "cpu.cfs_period_us", root)
    pairs = [
        *(text.split() for text in _read("", "cpu.max", root)),
        *([quota, period] for quota, period in zip(_read("cpu", "cpu.cfs_quota_us", root), periods, strict=False)),
    ]
    return min((int(quota) / int(period) for quota, period in pairs if quota not in ("max", "-1")), default=None)


def _read(controller: str, name: str, root: Path) -> list[str]:
    """Return what a file says in this process's control group and in those above; no controller is version 2."""
    return [
        file.read_text(encoding="utf-8").strip()
        for folder in _groups(controller, root)
        if (file := folder / name).is_file()
    ]


def _groups(controller: str, root: Path) -> Iterator[Path]:
    mounted = root / "sys" / "fs" / "cgroup" / controller
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = mounted / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mounted))


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
