"""The locks of a clone: ours end with the process that holds them, those of DVC do not."""

import json
import os
import platform
import subprocess
import sys
import time

import psutil
import pytest

from falcon_job.errors import JobError
from falcon_job.stages import locks
from falcon_job.stages.locks import clear_dvc_locks, lock
from falcon_job.workspace import Workspace

HOLD = """
import sys, time
from pathlib import Path
from falcon_job.stages.locks import lock
from falcon_job.workspace import Workspace

with lock(Workspace(Path(sys.argv[1])), "train"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return Workspace(tmp_path)


@pytest.fixture
def holder(workspace):
    """Another process that holds the lock of train."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(workspace.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def write_dvc_lock(workspace, pid, seconds_ago=0.0):
    path = workspace.root / ".dvc" / "tmp" / "rwlock"
    holder = {"pid": pid, "cmd": "dvc repro"}
    path.write_text(json.dumps({"write": {"build/adapter": holder}, "read": {"build/dataset": [holder]}}))
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def test_a_held_lock_is_refused_with_what_runs_and_where(workspace, holder):
    with pytest.raises(JobError) as refused, lock(workspace, "train"):
        pass
    assert refused.value.problem == "is in use by another `falcon-job train`"
    assert refused.value.place == str(workspace.root)
    assert refused.value.fix == "wait for it, or stop it"


def test_another_lock_of_the_clone_is_free(workspace, holder):
    with lock(workspace, "evaluate"):
        pass


def test_the_same_lock_of_another_clone_is_free(tmp_path, holder):
    with lock(Workspace(tmp_path / "other"), "train"):
        pass


def test_a_killed_holder_releases_the_lock(workspace, holder):
    holder.kill()
    holder.wait()
    with lock(workspace, "train"):
        pass


def test_a_lock_file_that_no_process_holds_does_not_block(workspace):
    """Such as that of a killed container, whose process id belongs to another process here."""
    path = workspace.scratch / "locks" / "train.lock"
    path.parent.mkdir(parents=True)
    path.write_text(f"{os.getpid()}\n{platform.node()}\n")
    with lock(workspace, "train"):
        pass


def test_an_error_inside_releases_the_lock(workspace):
    with pytest.raises(ZeroDivisionError), lock(workspace, "train"):
        _ = 1 / 0
    with lock(workspace, "train"):
        pass


def test_a_timeout_of_the_work_inside_is_not_taken_for_a_held_lock(workspace, holder):
    with pytest.raises(locks.Timeout), lock(workspace, "evaluate"):
        raise locks.Timeout("another file's lock")


def test_a_clone_that_is_not_writable_is_named(workspace):
    workspace.scratch.write_text("a file where a folder belongs")
    with pytest.raises(JobError, match=r"scratch.*cannot be locked.*make .* writable"), lock(workspace, "train"):
        pass


def test_a_clone_where_dvc_never_ran_has_no_locks_to_clear(workspace):
    clear_dvc_locks(workspace)


def test_the_lock_of_a_dead_dvc_is_removed(workspace):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = write_dvc_lock(workspace, process.pid)
    clear_dvc_locks(workspace)
    assert not path.exists()


def test_a_lock_whose_process_id_now_belongs_to_another_process_is_removed(workspace):
    age = time.time() - psutil.Process().create_time()
    path = write_dvc_lock(workspace, os.getpid(), seconds_ago=age + 60)
    clear_dvc_locks(workspace)
    assert not path.exists()


def test_the_lock_of_a_running_dvc_is_respected(workspace, monkeypatch):
    monkeypatch.setattr(locks, "DVC_PATIENCE_SECONDS", 0.2)
    path = write_dvc_lock(workspace, os.getpid())
    with pytest.raises(JobError, match=rf"is in use by DVC \(process {os.getpid()}\): wait for it, or stop it"):
        clear_dvc_locks(workspace)
    assert path.exists()


def test_a_dvc_that_is_about_to_end_is_waited_for(workspace):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
    path = write_dvc_lock(workspace, process.pid)
    clear_dvc_locks(workspace)
    assert not path.exists()
    process.wait()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"read": 3}', '{"write": {"a": {"pid": "x"}}}', '{"write": {"a": 1}}']
)
def test_a_half_written_dvc_lock_is_removed(workspace, text):
    path = workspace.root / ".dvc" / "tmp" / "rwlock"
    path.write_text(text)
    clear_dvc_locks(workspace)
    assert not path.exists()


def test_a_dvc_lock_that_nobody_holds_stays(workspace):
    path = workspace.root / ".dvc" / "tmp" / "rwlock"
    path.write_text('{"write": {}, "read": {"build/dataset": []}}')
    clear_dvc_locks(workspace)
    assert path.exists()
