"""Packages: what pyproject.toml needs is a problem, what differs from requirements.lock a note."""

from importlib.metadata import version

import pytest

from falcon_job.commands.doctor.finding import Surroundings
from falcon_job.commands.doctor.packages import check_packages, check_python
from falcon_job.workspace import Workspace


@pytest.fixture
def compare(tmp_path):
    def compare(lock, needs=()):
        (tmp_path / "requirements.lock").write_text("# Made by make lock.\n" + "".join(f"{line}\n" for line in lock))
        (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {[*needs]}\n")
        return check_packages(Surroundings(Workspace(tmp_path)))

    return compare


def test_this_python_is_new_enough():
    assert check_python(Surroundings()).status == "ok"


def test_an_old_python_is_a_problem(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.10.12")
    assert check_python(Surroundings()).status == "problem"


def test_the_versions_of_the_lock_are_ok_whatever_build_they_are(compare):
    torch = version("torch").partition("+")[0]
    found = compare([f"torch=={torch}", f"click=={version('click')}"], ["click>=8"])
    assert found.status == "ok"
    assert "the 2 of" in found.found


def test_up_to_three_differences_are_named_with_what_to_run(compare):
    found = compare(["click==0.1", "numpy==0.1", "nowhere-to-be-found==1", "rich==0.1", "psutil==0.1"])
    assert found.status == "note"
    assert f"click {version('click')} (not ==0.1)" in found.found
    assert "no nowhere-to-be-found and 2 more" in found.found
    assert "make env" in found.fix


def test_in_the_image_the_image_is_what_to_renew(compare, monkeypatch):
    monkeypatch.setenv("FALCON_JOB_IMAGE", "1")
    assert compare(["click==0.1"]).fix == "`make image`"


def test_a_line_for_another_machine_does_not_count(compare):
    here = f"click=={version('click')}"
    assert compare([here, "nowhere==1 ; sys_platform == 'never'"]).status == "ok"
    assert compare([here, "nowhere==1 ; python_version >= '3'"]).status == "note"


@pytest.mark.parametrize("need", ["nowhere-to-be-found", "click>=1000"])
def test_what_the_job_cannot_run_without_is_a_problem(compare, need):
    found = compare([], ["rich", need])
    assert found.status == "problem"
    assert need.partition(">")[0] in found.found


def test_bitsandbytes_is_left_to_its_own_check(compare):
    assert compare([], ["bitsandbytes>=1000"]).status == "ok"
