"""For all tests: the bundled data, machine settings, and hypothesis without limits: a busy machine is no failure."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from falcon_job.machine import machine

settings.register_profile("falcon_job", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("falcon_job")

ROOT = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Unpack data/ in a fresh clone; collecting some tests reads it."""
    if not (ROOT / "data").exists():
        subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc"], cwd=ROOT, check=True)


@pytest.fixture
def set_machine(monkeypatch):
    """Set variables of the machine, by their names without FALCON_JOB_."""

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"FALCON_JOB_{name.upper()}", value)
        machine.cache_clear()

    yield set_variables
    monkeypatch.undo()
    machine.cache_clear()
