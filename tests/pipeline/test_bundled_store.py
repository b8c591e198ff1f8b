"""The bundled DVC remote is in Git: everyone can pull the demo from it, and no push changes it."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.publish_demo import generate, publish_demo

ROOT = Path(__file__).parents[2]
IDENTITY = {f"GIT_{role}_{key}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif("remote: bundled" not in (ROOT / "data.dvc").read_text(), reason="data.dvc is own data"),
]


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path) -> None:
    """No Git identity, no settings of this user, no network by proxy, no DVC cache of other clones."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.fixture
def clone(tmp_path) -> Path:
    """A fresh clone of the working tree, as if all of it were committed."""
    origin = tmp_path / "origin"
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (origin / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, origin / name)
    run(origin, "git", "init", "--quiet")
    run(origin, "git", "add", "--all", "--force")
    run(origin, "git", "commit", "--quiet", "--message", "all", env=os.environ | IDENTITY)
    run(tmp_path, "git", "clone", "--quiet", "origin", "clone")
    return tmp_path / "clone"


def run(folder: Path, *command: str, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, check=check, capture_output=True, text=True, **options)


def dvc(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "dvc", *arguments, check=check)


def store(clone: Path) -> dict[str, str]:
    """Return every file of the bundled store with its sha256."""
    files = (path for path in (clone / "dvc-store").rglob("*") if path.is_file())
    return {str(path.relative_to(clone)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def store_in_git(clone: Path) -> list[str]:
    """What Git would report or add of the store."""
    run(clone, "git", "add", "--all")
    status = run(clone, "git", "status", "--porcelain", "--untracked-files=all").stdout
    return [line for line in status.splitlines() if "dvc-store" in line]


def add_own_files(clone: Path) -> None:
    """Change the demo data in place and add another output, as a user might."""
    (clone / "data" / "train.json").write_text("private train")
    (clone / "weights.bin").write_text("private weights")
    dvc(clone, "commit", "--force", "data.dvc")
    dvc(clone, "add", "weights.bin")


def test_a_fresh_clone_pulls_the_demo_and_is_clean(clone):
    dvc(clone, "pull", "data.dvc")
    assert {path.name for path in (clone / "data").iterdir()} == {"train.json", "dev.json", "falcon-tiny"}
    dvc(clone, "status", "--quiet", "data.dvc")
    assert not run(clone, "git", "status", "--porcelain").stdout


def test_the_store_holds_the_objects_of_the_demo_only(clone):
    dvc(clone, "pull", "data.dvc")
    pulled = {path.relative_to(clone / ".dvc" / "cache") for path in (clone / ".dvc/cache/files").rglob("*")}
    stored = {path.relative_to(clone / "dvc-store") for path in (clone / "dvc-store/files").rglob("*")}
    assert stored == pulled
    assert sum(path.stat().st_size for path in (clone / "dvc-store").rglob("*") if path.is_file()) < 10_000_000


def test_the_store_holds_what_the_demos_generator_writes(clone):
    dvc(clone, "pull", "data.dvc")
    stored = {path: path.read_bytes() for path in (clone / "data").rglob("*") if path.is_file()}
    generate(clone / "data", clone / "data" / "falcon-tiny")
    written = {path: path.read_bytes() for path in (clone / "data").rglob("*") if path.is_file()}
    assert written == stored, "run tools.publish_demo"


def test_a_plain_push_sends_nothing_to_the_store(clone):
    before = store(clone)
    dvc(clone, "pull", "data.dvc")
    add_own_files(clone)
    for arguments in [(), ("data.dvc",), ("data.dvc", "--remote", "bundled"), ("--all-commits",)]:
        dvc(clone, "push", *arguments, check=False)
        assert store(clone) == before
    assert not store_in_git(clone)


def test_a_default_remote_gets_other_outputs_and_not_the_store(clone, tmp_path):
    before = store(clone)
    dvc(clone, "pull", "data.dvc")
    add_own_files(clone)
    dvc(clone, "remote", "add", "--default", "mine", str(tmp_path / "mine"))
    dvc(clone, "push", "weights.bin")
    assert [path.read_text() for path in (tmp_path / "mine").rglob("*") if path.is_file()] == ["private weights"]
    assert store(clone) == before
    assert not store_in_git(clone)


def test_git_ignores_what_is_pushed_to_the_store_on_purpose(clone):
    dvc(clone, "pull", "data.dvc")
    add_own_files(clone)
    dvc(clone, "push", "--remote", "bundled", "weights.bin")
    assert not store_in_git(clone)
    run(clone, "git", "add", "dvc-store", check=False)
    assert not store_in_git(clone)


def test_publishing_replaces_the_objects_and_leaves_push_off(clone, monkeypatch):
    dvc(clone, "pull", "data.dvc")
    old = set(store(clone))

    def write(folder: Path, _model: Path) -> None:
        (folder / "train.json").write_text("new demo")

    monkeypatch.setattr("tools.publish_demo.generate", write)
    publish_demo(clone)
    assert "push: false" in (clone / "data.dvc").read_text()
    assert len(set(store(clone)) - old) == 2, "the new file and the new listing"
    assert any(line.startswith("A") for line in store_in_git(clone))
    shutil.rmtree(clone / "data")
    shutil.rmtree(clone / ".dvc" / "cache")
    dvc(clone, "pull", "data.dvc")
    assert (clone / "data" / "train.json").read_text() == "new demo"


def test_publishing_refuses_own_data(clone):
    dvc_file = clone / "data.dvc"
    dvc_file.write_text(dvc_file.read_text().replace("  remote: bundled\n", ""))
    with pytest.raises(SystemExit, match="own data"):
        publish_demo(clone)
    assert not (clone / "data").exists()
