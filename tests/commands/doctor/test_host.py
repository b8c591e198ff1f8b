"""Memory, disks and folders."""

import shlex
import subprocess
import sys

import psutil
import pytest

from falcon_job.commands.doctor import host
from falcon_job.commands.doctor.finding import Surroundings, look_around
from falcon_job.commands.doctor.host import check_disk, check_folders, check_memory, check_shared_memory
from tests.commands.doctor.conftest import ONE_CHECK

TOTAL = f"{psutil.virtual_memory().total / 1e9:.1f} GB"


@pytest.mark.parametrize(
    ("limit", "total", "is_low"), [("1000000000", "1.0 GB", True), ("max", TOTAL, None), (None, TOTAL, None)]
)
def test_the_memory_of_a_container_may_be_less_than_the_hosts(tmp_path, limit, total, is_low):
    if limit:
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    found = check_memory(Surroundings(), tmp_path)
    assert f"of {total} available" in found.found
    assert is_low is None or (found.status == "note") is is_low


def usage(monkeypatch, **numbers):
    monkeypatch.setattr(host.shutil, "disk_usage", lambda folder: type("Usage", (), numbers))


@pytest.mark.parametrize(("size", "status"), [(64 * 2**20, "note"), (8e9, "ok")])
def test_shared_memory_as_small_as_dockers_is_noted(tmp_path, monkeypatch, size, status):
    assert check_shared_memory(Surroundings(), tmp_path).status == "ok", "a system without /dev/shm"
    (tmp_path / "dev/shm").mkdir(parents=True)
    usage(monkeypatch, total=size)
    found = check_shared_memory(Surroundings(), tmp_path)
    assert found.status == status
    assert status == "ok" or "--shm-size" in found.fix


def test_little_space_is_noted_and_weights_to_download_need_more(clone, monkeypatch):
    monkeypatch.chdir(clone.folder)
    usage(monkeypatch, free=4.9e9)
    assert check_disk(look_around()).status == "note"
    usage(monkeypatch, free=19e9)
    assert check_disk(look_around()).status == "ok"
    clone.set_model(source="org/falcon-7b", revision="0" * 40)
    found = check_disk(look_around())
    assert found.status == "note"
    assert "20.0 GB in HF_HOME" in found.fix


def test_folders_that_can_be_written_are_ok_and_none_is_made(clone, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert clone.finding("folders")[0] == "ok"
    assert clone.finding("disk")[0] in ("ok", "note")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("where", ["/proc/cache", "FILE/cache"])
@pytest.mark.parametrize(
    ("variable", "status"),
    [("TRITON_CACHE_DIR", "note"), ("TORCHINDUCTOR_CACHE_DIR", "note"), ("DVC_SITE_CACHE_DIR", "problem")],
)
def test_a_cache_that_cannot_be_written_is_named(clone, tmp_path, variable, status, where):
    (tmp_path / "file").touch()
    folder = where.replace("FILE", str(tmp_path / "file"))
    found = clone.finding("folders", **{variable: folder})
    assert found[0] == status
    assert f"{variable}: {folder} cannot be written" in found[1]


def test_a_read_only_hub_cache_is_a_problem_only_while_weights_are_missing(clone):
    assert clone.finding("folders", HF_HOME="/proc/hf")[0] == "ok"
    clone.set_model(source="org/falcon-7b", revision="0" * 40)
    assert clone.finding("folders", HF_HOME="/proc/hf")[0] == "problem"


def test_a_clone_that_cannot_be_written_is_a_problem(clone, monkeypatch):
    honest = host.why_not_usable

    def on_a_read_only_disk(folder, **options):
        return "read-only" if folder == clone.folder else honest(folder, **options)

    monkeypatch.setattr(host, "why_not_usable", on_a_read_only_disk)
    monkeypatch.chdir(clone.folder)
    found = check_folders(look_around())
    assert found.status == "problem"
    assert f"the clone: {clone.folder} cannot be written (read-only)" in found.found


def test_a_cache_on_a_mount_without_exec_is_noted(clone, tmp_path):
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    mount = f"mount -t tmpfs -o noexec,size=8m tmpfs {shlex.quote(str(mounted))}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    check = shlex.join([sys.executable, "-c", ONE_CHECK, "check_folders"])
    done = clone.call("unshare", "--mount", "sh", "-c", f"{mount} && {check}", TMPDIR=str(mounted))
    assert '"status": "note"' in done.stdout
    assert f"TMPDIR: {mounted}" in done.stdout
    assert "mount with exec" in done.stdout
