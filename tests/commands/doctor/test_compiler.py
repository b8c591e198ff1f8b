"""A compiler is one that makes an extension which can be loaded; without, a note."""

import shutil

import pytest

from falcon_job.commands.doctor import compiler
from falcon_job.commands.doctor.compiler import check_compiler
from falcon_job.commands.doctor.finding import Surroundings

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
NOWHERE = Surroundings()


@pytest.fixture(autouse=True)
def _no_compiler_named(monkeypatch):
    monkeypatch.delenv("CC", raising=False)


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Make a folder the PATH, and programs in it."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


def test_the_compiler_of_this_machine_makes_an_extension():
    found = check_compiler(NOWHERE)
    assert found.status == "ok"


def test_no_compiler_on_the_path_is_noted(tool):
    found = check_compiler(NOWHERE)
    assert found.status == "note"
    assert "no C compiler" in found.found
    assert "gcc" in found.fix


def test_a_named_compiler_is_the_one(tool, monkeypatch):
    real = shutil.which("cc", path="/usr/local/bin:/usr/bin:/bin")
    tool("mine", f'PATH=/usr/local/bin:/usr/bin:/bin exec {real} "$@"')
    assert check_compiler(NOWHERE).status == "note", "not on the PATH by a known name"
    monkeypatch.setenv("CC", "mine -O1")
    found = check_compiler(NOWHERE)
    assert found.status == "ok"
    assert "mine" in found.found


def test_a_named_compiler_that_is_not_there_is_noted(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    found = check_compiler(NOWHERE)
    assert found.status == "note"
    assert "CC names no-such-compiler" in found.found


def test_missing_headers_are_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "_headers", lambda: str(tmp_path))
    found = check_compiler(NOWHERE)
    assert found.status == "note"
    assert "Python.h" in found.found
    assert "python3-dev" in found.fix


def test_a_compiler_that_fails_is_quoted(tool):
    tool("gcc", "echo 'gcc: fatal error: cannot execute cc1' >&2; exit 1")
    found = check_compiler(NOWHERE)
    assert found.status == "note"
    assert "cannot execute cc1" in found.found


def test_what_is_compiled_must_load(tool):
    tool("gcc", 'for last; do :; done; echo "no library" > "$last"')
    found = check_compiler(NOWHERE)
    assert found.status == "note"
    assert "cannot be loaded" in found.found
