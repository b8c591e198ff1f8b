"""Packages: what pyproject.toml needs is a problem, what differs from requirements.lock a note. Compilers are run."""

import shutil
import sysconfig
from importlib.metadata import version

import pytest

from falcon_job.commands.doctor.finding import Surroundings
from falcon_job.commands.doctor.python import check_compiler, check_packages
from falcon_job.errors import MachineError
from falcon_job.workspace import Workspace

CLICK = f"click=={version('click')}"


@pytest.fixture
def compare(tmp_path):
    def compare(lock, needs=()):
        lines = "".join(f"{line}\n    # via something\n" for line in lock)
        (tmp_path / "requirements.lock").write_text(f"# Made by make lock.\n{lines}")
        (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {[*needs]}\n")
        return check_packages(Surroundings(Workspace(tmp_path)))

    return compare


def test_the_locked_versions_are_ok_whatever_build_they_are(compare):
    assert compare([f"torch=={version('torch').partition('+')[0]}", CLICK], ["click>=8"]).status == "ok"


def test_up_to_three_differences_are_named_with_what_to_run(compare):
    found = compare(["click==0.1", "numpy==0.1", "nowhere-to-be-found==1", "rich==0.1", "psutil==0.1"])
    assert found.status == "note"
    assert f"click {version('click')} instead of ==0.1" in found.found
    assert "no nowhere-to-be-found and 2 more" in found.found
    assert "make env" in found.fix


def test_in_the_image_the_image_is_to_be_built_again(compare, monkeypatch):
    monkeypatch.setenv("FALCON_JOB_IMAGE", "1")
    assert compare(["click==0.1"]).fix == "run `make image`"


def test_a_line_for_another_machine_does_not_count(compare):
    assert compare([CLICK, "nowhere==1 ; sys_platform == 'never'"]).status == "ok"
    assert compare([CLICK, "nowhere==1 ; python_version >= '3'"]).status == "note"


@pytest.mark.parametrize("need", ["nowhere-to-be-found", "click>=1000"])
def test_what_the_job_cannot_run_without_is_a_problem(compare, need):
    with pytest.raises(MachineError) as caught:
        compare([], ["rich", need])
    assert need.partition(">")[0] in caught.value.problem
    assert "make env" in caught.value.fix


def test_bitsandbytes_is_left_to_its_own_check(compare):
    assert compare([], ["bitsandbytes>=1000"]).status == "ok"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a folder the only one on the PATH, and programs in it."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return make


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_a_compiler_named_in_cc_is_the_one_that_is_tried(program, monkeypatch):
    path = "/usr/local/bin:/usr/bin:/bin"
    program("mine", f'PATH={path} exec {shutil.which("cc", path=path)} "$@"')
    assert check_compiler(Surroundings()).status == "note", "it is not found by itself"
    monkeypatch.setenv("CC", "mine -O1")
    found = check_compiler(Surroundings())
    assert found.status == "ok"
    assert "mine" in found.found


@pytest.mark.usefixtures("program")
def test_a_missing_compiler_is_named(monkeypatch):
    assert "gcc" in check_compiler(Surroundings()).found
    monkeypatch.setenv("CC", "no-such-compiler")
    found = check_compiler(Surroundings())
    assert found.status == "note"
    assert "no-such-compiler" in found.found
    assert "apt-get install gcc" in found.fix


def test_a_compiler_that_fails_is_quoted(program):
    program("gcc", "echo 'In a file' >&2; echo 'gcc: fatal error: cannot execute cc1' >&2; exit 1")
    found = check_compiler(Surroundings())
    assert found.status == "note"
    assert "(gcc: fatal error: cannot execute cc1)" in found.found


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_missing_headers_are_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    found = check_compiler(Surroundings())
    assert found.status == "note"
    assert "Python.h" in found.found
    assert "python3-dev" in found.fix
