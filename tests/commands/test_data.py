"""`falcon-job data`: question files are copied whole and recorded, and can never get into the store in Git."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from falcon_job.commands import data as command
from falcon_job.commands.data import import_data
from falcon_job.errors import InputError, JobError
from falcon_job.params import load_params
from falcon_job.workspace import Workspace

ROOT = Path(__file__).parents[2]
DEMO = {"remote": "bundled", "push": False, "desc": "the demo", "meta": {"license": "Apache-2.0"}}


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


def squad(name: str) -> str:
    """A SQuAD file with one passage about `name`."""
    answer = {"text": name, "answer_start": 0}
    asked = [
        {"id": f"{name}-0", "question": "Who slept?", "answers": [answer], "is_impossible": False},
        {"id": f"{name}-1", "question": "Who sang?", "answers": [], "is_impossible": True},
    ]
    paragraph = {"context": f"{name} slept well.", "qas": asked}
    return json.dumps({"version": "v2.0", "data": [{"title": name, "paragraphs": [paragraph]}]})


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """A repository with a small demo in data/, in its cache and in its bundled store."""
    root = tmp_path_factory.mktemp("published")
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    (root / "dvc.yaml").write_text("stages: {}\n")
    for name in ("train.json", "dev.json", "falcon-tiny/config.json"):
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / name).write_text(f"demo {name}")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    dvc(root, "add", "data")
    dvc(root, "push", "data.dvc", "--remote", "bundled")
    content = YAML().load(root / "data.dvc")
    content["outs"][0].update(DEMO)
    YAML().dump(content, root / "data.dvc")
    return root


@pytest.fixture
def workspace(published, tmp_path) -> Workspace:
    root = tmp_path / "clone"
    shutil.copytree(published, root, symlinks=True)
    params = (ROOT / "params.yaml").read_text()
    (root / "params.yaml").write_text(params.replace("dataset:\n", "dataset:  # where questions come from\n"))
    return Workspace(root)


@pytest.fixture
def own(tmp_path) -> dict[str, str]:
    """Own question files, outside the clone."""
    for split in ("train", "dev"):
        (tmp_path / f"my-{split}.v2.json").write_text(squad(f"Own{split}"))
    return {split: str(tmp_path / f"my-{split}.v2.json") for split in ("train", "dev")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def out(workspace: Workspace) -> dict:
    return YAML(typ="safe").load(workspace.root / "data.dvc")["outs"][0]


def files(workspace: Workspace) -> dict[str, bytes]:
    """Everything in the clone but locks and what DVC and Git keep for themselves."""
    found = (path for path in workspace.root.rglob("*") if path.is_file())
    named = {path.relative_to(workspace.root).as_posix(): path.read_bytes() for path in found}
    return {name: content for name, content in named.items() if not name.startswith((".git/", ".dvc/", "scratch/"))}


def test_own_files_replace_the_demos_questions_and_keep_its_model(workspace, own):
    import_data(workspace, **own)
    assert "Owntrain" in (workspace.data / "train.json").read_text()
    assert "Owndev" in (workspace.data / "dev.json").read_text()
    assert names(workspace.data) == ["dev.json", "falcon-tiny", "train.json"]
    assert (workspace.data / "falcon-tiny/config.json").read_text() == "demo falcon-tiny/config.json"


def test_data_dvc_is_current_and_no_longer_describes_the_demo(workspace, own):
    import_data(workspace, **own)
    assert set(out(workspace)) == {"md5", "size", "nfiles", "hash", "path"}
    dvc(workspace.root, "status", "--quiet", "data.dvc")


def test_a_push_never_puts_own_files_into_git(workspace, own):
    store = {name for name in files(workspace) if name.startswith("dvc-store/")}
    import_data(workspace, **own)
    subprocess.run([sys.executable, "-m", "dvc", "push"], cwd=workspace.root, check=False, capture_output=True)
    assert {name for name in files(workspace) if name.startswith("dvc-store/")} == store


def test_params_name_the_files_and_keep_the_rest(workspace, own):
    text = workspace.params.read_text()
    for split in ("train", "dev"):
        text = text.replace(f"{split}: data/{split}.json", f"{split}: https://example.org/{split}.json")
        text = text.replace(f"{split}_sha256: null", f"{split}_sha256: {'a' * 64}")
    before = workspace.params.read_text()
    workspace.params.write_text(text)
    import_data(workspace, **own)
    # a comment beside a value that has changed its length may move
    assert re.sub(" +#", " #", workspace.params.read_text()) == re.sub(" +#", " #", before)


def test_a_new_suffix_replaces_the_file_of_the_old_one(workspace, own, tmp_path):
    rows = tmp_path / "rows.JSONL"
    rows.write_text(json.dumps({"question": "Who slept?", "answer": "Nobody"}) + "\n")
    import_data(workspace, train=str(rows), dev=own["dev"])
    assert names(workspace.data) == ["dev.json", "falcon-tiny", "train.jsonl"]
    assert load_params(workspace.params).dataset.train == "data/train.jsonl"
    import_data(workspace, **own)
    assert names(workspace.data) == ["dev.json", "falcon-tiny", "train.json"]


def test_files_that_are_in_data_already_can_be_swapped(workspace, own):
    import_data(workspace, **own)
    import_data(workspace, train=str(workspace.data / "dev.json"), dev=str(workspace.data / "train.json"))
    assert "Owndev" in (workspace.data / "train.json").read_text()
    assert "Owntrain" in (workspace.data / "dev.json").read_text()


def test_files_linked_to_the_cache_leave_the_cache_unchanged(workspace, own):
    dvc(workspace.root, "config", "--local", "cache.type", "symlink")
    dvc(workspace.root, "checkout", "--relink", "data.dvc")
    assert (workspace.data / "train.json").is_symlink()
    import_data(workspace, **own)
    cached = [path.read_text() for path in (workspace.root / ".dvc/cache/files").rglob("*") if path.is_file()]
    assert "demo train.json" in cached
    assert squad("Owntrain") in cached


def test_a_clone_without_data_gets_the_model_first(workspace, own):
    shutil.rmtree(workspace.data)
    shutil.rmtree(workspace.root / ".dvc" / "cache")
    import_data(workspace, **own)
    assert names(workspace.data) == ["dev.json", "falcon-tiny", "train.json"]


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.json", None, r"--\w+ .*missing\.json is not a file: give the path of a question file"),
        ("broken.json", "{", "broken.json"),
        ("empty.json", '{"version": "v2.0", "data": []}', "no questions"),
        ("notes.txt", "hello", "unknown suffix"),
        ("wrong.json", squad("Wrong").replace('"answer_start": 0', '"answer_start": 7'), "Wrong-0"),
    ],
)
def test_a_bad_file_changes_nothing(workspace, own, tmp_path, split, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    before = files(workspace)
    with pytest.raises(InputError, match=message):
        import_data(workspace, **{**own, split: str(tmp_path / name)})
    assert files(workspace) == before


def test_a_folder_is_refused(workspace, own, tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        import_data(workspace, train=str(tmp_path), dev=own["dev"])


def test_a_url_is_refused_with_the_keys_to_set(workspace, own):
    before = files(workspace)
    with pytest.raises(InputError) as refused:
        import_data(workspace, train=own["train"], dev="https://example.org/dev.json")
    assert refused.value.place == "--dev https://example.org/dev.json"
    assert refused.value.fix == f"set dataset.dev and dataset.dev_sha256 in {workspace.params} instead"
    assert files(workspace) == before


def test_bad_params_change_nothing(workspace, own):
    workspace.params.write_text("model: {}\n")
    before = files(workspace)
    with pytest.raises(InputError, match=r"params\.yaml"):
        import_data(workspace, **own)
    assert files(workspace) == before


def test_a_copy_that_fails_halfway_leaves_data_and_params_unchanged(workspace, own, monkeypatch):
    before = files(workspace)
    copy = shutil.copyfile

    def fail_at_dev(source: Path, target: Path) -> None:
        copy(source, target)
        if target.name.startswith("dev"):
            raise OSError("no space left on device")

    monkeypatch.setattr(command.shutil, "copyfile", fail_at_dev)
    with pytest.raises(OSError, match="no space left"):
        import_data(workspace, **own)
    after = files(workspace)
    assert {name for name in before if before[name] != after[name]} == {"data.dvc"}, (
        "it no longer names the bundled remote"
    )
    assert set(after) == set(before)


def test_if_dvc_fails_params_name_files_that_exist(workspace, own):
    (workspace.root / ".dvc" / "config").write_text("[core]\nnonsense = true\n")
    with pytest.raises(JobError, match=r"`dvc commit --force data\.dvc` failed") as failed:
        import_data(workspace, **own)
    assert any("nonsense" in str(problem) for problem in failed.value.problems)
    dataset = load_params(workspace.params).dataset
    assert workspace.path(dataset.train).is_file()
    assert workspace.path(dataset.dev).is_file()
