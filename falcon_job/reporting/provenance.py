"""When, from which commit, with which software and on which machine a result was made."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from falcon_job import __version__

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "dvc")


def provenance(root: Path) -> dict[str, object]:
    """Return the date (UTC), the commit, the versions of Python and of libraries, and the GPU or CPU of this run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(root),
        "python": platform.python_version(),
        "libraries": {"falcon_job": __version__, **{name: _version(name) for name in LIBRARIES}},
        "machine": _machine(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit(root: Path) -> str | None:
    """Return the commit of the clone, with "-dirty" if files differ from it; None outside Git or without `git`."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],  # noqa: S607
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _machine() -> str:
    """Return the name of the GPU, or the CPU architecture; never the host name."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
