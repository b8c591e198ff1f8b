"""Memory and cores: those of the machine, or of its control group where that has less."""

import os

import psutil
import pytest

from falcon_job.commands.doctor.finding import Surroundings
from falcon_job.commands.doctor.host import check_cores, check_memory, check_shared_memory, cpu_quota, memory_limit

NOWHERE = Surroundings()
UNLIMITED = "9223372036854771712"


@pytest.fixture
def files(tmp_path):
    """Write files under a root like /."""

    def write(contents):
        for name, content in contents.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{content}\n")
        return tmp_path

    return write


def version_2(group, **contents):
    return {"proc/self/cgroup": "0::/" + group, **{f"sys/fs/cgroup/{k}": v for k, v in contents.items()}}


def test_a_system_without_control_groups_has_no_limits(tmp_path):
    assert memory_limit(tmp_path) is None
    assert cpu_quota(tmp_path) is None
    assert check_cores(NOWHERE, tmp_path).status == "ok"
    assert check_shared_memory(NOWHERE, tmp_path).status == "ok"


def test_this_machine_has_lines():
    assert "available" in check_memory(NOWHERE).found
    assert "usable" in check_cores(NOWHERE).found


def test_a_container_of_version_2_has_its_own_limits(files):
    root = files(version_2("", **{"memory.max": 2_000_000_000, "cpu.max": "150000 100000"}))
    assert memory_limit(root) == 2_000_000_000
    assert cpu_quota(root) == 1.5


def test_version_2_without_limits(files):
    root = files(version_2("", **{"memory.max": "max", "cpu.max": "max 100000"}))
    assert memory_limit(root) is None
    assert cpu_quota(root) is None


def test_the_lowest_limit_above_a_group_counts(files):
    """As in a job of Slurm, or a slice of systemd."""
    contents = {"job/memory.max": 3_000_000_000, "job/step/memory.max": "max", "job/step/cpu.max": "400000 100000"}
    root = files(version_2("job/step", **contents, **{"job/cpu.max": "200000 100000"}))
    assert memory_limit(root) == 3_000_000_000
    assert cpu_quota(root) == 2


def test_version_1(files):
    cgroup = "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/\n0::/"
    root = files(
        {
            "proc/self/cgroup": cgroup,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 1_500_000_000,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": 50000,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
        }
    )
    assert memory_limit(root) == 1_500_000_000
    assert cpu_quota(root) == 0.5


def test_version_1_without_limits(files):
    root = files(
        {
            "proc/self/cgroup": "4:memory:/\n5:cpu:/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
        }
    )
    assert cpu_quota(root) is None
    assert "at most" not in check_memory(NOWHERE, root).found


def test_a_low_memory_limit_is_noted(files):
    found = check_memory(NOWHERE, files(version_2("", **{"memory.max": 1_000_000_000})))
    assert found.status == "note"
    assert "at most 1.0 GB" in found.found
    assert found.found.startswith(f"{psutil.virtual_memory().total / 1e9:.1f} GB")


def test_a_quota_below_the_cores_is_noted_unless_threads_are_set(files, monkeypatch):
    root = files(version_2("", **{"cpu.max": "50000 100000"}))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = check_cores(NOWHERE, root)
    assert found.status == "note"
    assert "OMP_NUM_THREADS=1" in found.fix
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert check_cores(NOWHERE, root).status == "ok"


def test_cores_that_this_process_may_not_use_do_not_count():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert check_cores(NOWHERE).found.startswith("1 usable")
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("size", "status"), [(64 * 2**20, "note"), (8e9, "ok")])
def test_shared_memory_as_small_as_dockers_is_noted(files, monkeypatch, size, status):
    root = files({"dev/shm/file": ""})
    monkeypatch.setattr(psutil, "disk_usage", lambda path: type("Usage", (), {"total": size}))
    found = check_shared_memory(NOWHERE, root)
    assert found.status == status
    assert status == "ok" or "--shm-size" in found.fix
