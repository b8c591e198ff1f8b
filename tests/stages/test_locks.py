"""The clone's locks: held by a process, gone with it; and those of DVC, which are not."""

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


def note_in_dvc_lock(workspace, pid, seconds_ago=0.0):
    path = workspace.root / ".dvc" / "tmp" / "rwlock"
    holder = {"pid": pid, "cmd": "dvc repro"}
    path.write_text(json.dumps({"write": {"build/adapter": holder}, "read": {"build/dataset": [holder]}}))
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def test_a_held_lock_is_refused_with_what_runs_and_where(workspace, holder):
    with pytest.raises(JobError, match="another `falcon-job train` is running in") as refused, lock(workspace, "train"):
        pass
    assert str(workspace.root) in str(refused.value)


def test_another_lock_of_the_clone_is_free(workspace, holder):
    with lock(workspace, "evaluate"):
        pass


def test_the_same_lock_of_another_clone_is_free(tmp_path, holder):
    with lock(Workspace(tmp_path / "other"), "train"):
        pass


def test_a_killed_holder_leaves_the_lock_free(workspace, holder):
    holder.kill()
    holder.wait()
    with lock(workspace, "train"):
        pass


def test_a_lock_file_that_no_process_holds_does_not_block(workspace):
    """Such as one of a container that was killed, with a number that is another process's here."""
    path = workspace.scratch / "locks" / "train.lock"
    path.parent.mkdir(parents=True)
    path.write_text(f"{os.getpid()}\n{platform.node()}\n")
    with lock(workspace, "train"):
        pass


def test_a_lock_is_free_again_after_an_error_inside(workspace):
    with pytest.raises(ZeroDivisionError), lock(workspace, "train"):
        _ = 1 / 0
    with lock(workspace, "train"):
        pass


def test_a_timeout_inside_is_not_taken_for_a_held_lock(workspace, holder):
    with pytest.raises(locks.Timeout), lock(workspace, "evaluate"):
        raise locks.Timeout("a file of somebody else")


def test_a_clone_that_cannot_be_written_is_named(workspace):
    workspace.scratch.write_text("a file where a folder belongs")
    with pytest.raises(JobError, match=r"scratch.*cannot be locked.*make .* writable"), lock(workspace, "train"):
        pass


def test_a_clone_where_dvc_never_ran_has_nothing_to_clear(workspace):
    clear_dvc_locks(workspace)


def test_a_dead_dvc_is_forgotten(workspace):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = note_in_dvc_lock(workspace, process.pid)
    clear_dvc_locks(workspace)
    assert not path.exists()


def test_a_dead_dvc_whose_number_is_anothers_now_is_forgotten(workspace):
    age = time.time() - psutil.Process().create_time()
    path = note_in_dvc_lock(workspace, os.getpid(), seconds_ago=age + 60)
    clear_dvc_locks(workspace)
    assert not path.exists()


def test_a_dvc_at_work_is_respected(workspace, monkeypatch):
    monkeypatch.setattr(locks, "DVC_PATIENCE_SECONDS", 0.2)
    path = note_in_dvc_lock(workspace, os.getpid())
    with pytest.raises(JobError, match=rf"DVC is at work in .*process {os.getpid()}.*wait for it, or stop it"):
        clear_dvc_locks(workspace)
    assert path.exists()


def test_a_dvc_that_is_about_to_end_is_waited_for(workspace):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
    path = note_in_dvc_lock(workspace, process.pid)
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
