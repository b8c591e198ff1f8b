import json

import pytest

from falcon_job.machine import machine
from falcon_job.model.engine import Engine
from falcon_job.training.checkpoints import forget, recall

BEGUN = Engine("flex", "on", "on", 2048)
NOW = Engine("flex", "on", "off", 8192)


@pytest.fixture
def folder(tmp_path):
    """Where a run of `BEGUN`, all of it auto, keeps its checkpoints."""
    assert recall(tmp_path, BEGUN) == BEGUN
    yield tmp_path
    machine.cache_clear()


def test_a_resumed_run_keeps_all_that_auto_was(folder):
    assert recall(folder, NOW) == BEGUN


def test_a_setting_that_is_given_on_resume_holds(folder, monkeypatch):
    monkeypatch.setenv("FALCON_JOB_TOKENS_PER_PACK", "8192")
    machine.cache_clear()

    assert recall(folder, NOW) == Engine("flex", "on", "on", 8192)


def test_on_a_machine_without_the_kernel_nothing_is_recalled(folder):
    elsewhere = Engine("sdpa", "off", "off", 2048)

    assert recall(folder, elsewhere) == elsewhere
    assert recall(folder, NOW) == BEGUN, "and what was recorded stays"


def test_what_was_given_is_not_recorded_as_what_auto_was(tmp_path, monkeypatch):
    monkeypatch.setenv("FALCON_JOB_TOKENS_PER_PACK", "2048")
    machine.cache_clear()
    try:
        recall(tmp_path, BEGUN)
    finally:
        monkeypatch.undo()
        machine.cache_clear()

    assert "tokens_per_pack" not in json.loads((tmp_path / "machine.json").read_text())
    assert recall(tmp_path, NOW).tokens_per_pack == 8192


def test_a_run_that_is_done_leaves_nothing_to_recall(folder):
    forget(folder)

    assert recall(folder, NOW) == NOW
