"""For all tests: the bundled data, and hypothesis without a deadline, since a busy machine is not a failure."""

import subprocess
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

settings.register_profile("falcon_job", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("falcon_job")

ROOT = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Pull data/ in a fresh clone, because some tests read it when they are collected."""
    if not (ROOT / "data").exists():
        subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc"], cwd=ROOT, check=True)
