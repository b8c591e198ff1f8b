import pytest

from falcon_job.machine import machine


@pytest.fixture
def set_machine(monkeypatch):
    def set_variable(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"FALCON_JOB_{name.upper()}", value)
        machine.cache_clear()

    yield set_variable
    monkeypatch.undo()
    machine.cache_clear()
