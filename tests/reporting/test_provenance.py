import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version

import pytest

from falcon_job import __version__
from falcon_job.reporting.provenance import provenance


@pytest.fixture
def clone(tmp_path, monkeypatch):
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.org")
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    return tmp_path


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_the_whole_hash(clone):
    assert provenance(clone)["commit"] == git(clone, "rev-parse", "HEAD")


def test_a_tag_does_not_stand_in_for_the_commit(clone):
    git(clone, "tag", "v1")
    git(clone, "tag", "--annotate", "v2", "--message", "two")
    assert provenance(clone)["commit"] == git(clone, "rev-parse", "HEAD")


def test_changed_files_are_marked(clone):
    (clone / "file").write_text("two")
    assert provenance(clone)["commit"] == f"{git(clone, 'rev-parse', 'HEAD')}-dirty"


def test_outside_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance(tmp_path)["commit"] is None


def test_without_the_git_program_there_is_no_commit(clone, monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    assert provenance(clone)["commit"] is None


def test_versions_and_date_are_those_of_this_run(clone):
    made = provenance(clone)
    assert made["libraries"]["falcon_job"] == __version__
    assert all(
        made["libraries"][name] == version(name) for name in ("torch", "transformers", "peft", "bitsandbytes", "dvc")
    )
    assert made["python"] == platform.python_version()
    date = datetime.fromisoformat(made["date"])
    assert date.tzinfo == UTC
    assert abs((datetime.now(UTC) - date).total_seconds()) < 60


def test_it_names_no_host_and_no_path(clone):
    text = str(provenance(clone))
    assert str(clone) not in text
    assert platform.node() not in text
