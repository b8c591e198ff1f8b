"""Space, permission, and whether compiled code can be loaded."""

import shlex
import subprocess
import sys

import pytest

from falcon_job.commands.doctor import folders
from falcon_job.commands.doctor.finding import look_around
from tests.commands.doctor.conftest import ONE_CHECK

MOUNT_NOEXEC = "mount -t tmpfs -o noexec,size=8m tmpfs"


def test_folders_that_can_be_written_are_ok_and_none_is_made(clone, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert clone.finding("folders")[0] == "ok"
    assert clone.finding("disk")[0] in ("ok", "note")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("where", ["/proc/cache", "FILE/cache"])
@pytest.mark.parametrize("variable", ["TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"])
def test_a_cache_that_cannot_be_written_is_noted_with_its_variable(clone, tmp_path, variable, where):
    (tmp_path / "file").touch()
    folder = where.replace("FILE", str(tmp_path / "file"))
    status, found, fix = clone.finding("folders", **{variable: folder})
    assert status == "note"
    assert f"{variable}: {folder}" in found
    assert fix == f"set {variable} to writable folders"


def test_a_cache_that_dvc_needs_is_a_problem(clone):
    status, found, fix = clone.finding("folders", DVC_SITE_CACHE_DIR="/proc/dvc", TRITON_CACHE_DIR="/proc/triton")
    assert status == "problem"
    assert "/proc/dvc" in found
    assert fix == "set DVC_SITE_CACHE_DIR, TRITON_CACHE_DIR to writable folders"


def test_a_hub_cache_that_cannot_be_written_is_a_problem_while_weights_are_missing(clone):
    clone.set_model(source="org/falcon-7b", revision="0" * 40)
    assert clone.finding("folders", HF_HOME="/proc/hf")[0] == "problem"


def test_a_hub_cache_that_is_only_read_is_ok_once_the_weights_are_there(clone):
    assert clone.finding("folders", HF_HOME="/proc/hf")[0] == "ok"


def test_a_clone_that_cannot_be_written_is_a_problem(clone, monkeypatch):
    honest = folders.why_not_writable
    monkeypatch.setattr(
        folders, "why_not_writable", lambda folder: "read-only" if folder == clone.folder else honest(folder)
    )
    monkeypatch.chdir(clone.folder)
    found = folders.check_folders(look_around())
    assert found.status == "problem"
    assert found.fix == "make the clone writable"


def test_a_cache_on_a_mount_without_exec_is_noted(clone, tmp_path):
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    mount = f"{MOUNT_NOEXEC} {shlex.quote(str(mounted))}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    check = shlex.join([sys.executable, "-c", ONE_CHECK, "check_folders"])
    done = clone.call("unshare", "--mount", "sh", "-c", f"{mount} && {check}", TMPDIR=str(mounted))
    assert '"status": "note"' in done.stdout
    assert f"TMPDIR: {mounted} is mounted noexec" in done.stdout
    assert "with exec" in done.stdout


def usage_of(free):
    def disk_usage(path):
        return type("Usage", (), {"free": free})

    return disk_usage


def test_little_space_is_noted_and_too_little_for_the_weights_a_problem(clone, monkeypatch):
    monkeypatch.chdir(clone.folder)
    monkeypatch.setattr(folders.shutil, "disk_usage", usage_of(4.9e9))
    assert folders.check_disk(look_around()).status == "note"
    monkeypatch.setattr(folders.shutil, "disk_usage", usage_of(13.9e9))
    assert folders.check_disk(look_around()).status == "ok"
    clone.set_model(source="org/falcon-7b", revision="0" * 40)
    found = folders.check_disk(look_around())
    assert found.status == "problem"
    assert "about 14.0 GB" in found.found
    assert "HF_HOME" in found.fix
