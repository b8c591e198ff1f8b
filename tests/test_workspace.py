from pathlib import Path

import pytest

from falcon_job.errors import InputError
from falcon_job.workspace import Workspace


@pytest.fixture
def clone(tmp_path):
    root = tmp_path / "clone"
    (root / "docs" / "deep").mkdir(parents=True)
    (root / "dvc.yaml").touch()
    return root


@pytest.mark.parametrize("below", [".", "docs", "docs/deep"])
def test_it_is_found_from_any_folder_of_the_clone(clone, below, monkeypatch):
    assert Workspace.find(clone / below) == Workspace(clone)
    monkeypatch.chdir(clone / below)
    assert Workspace.find() == Workspace(clone)


def test_the_nearest_one_counts(clone):
    (clone / "docs" / "dvc.yaml").touch()
    assert Workspace.find(clone / "docs" / "deep").root == clone / "docs"


def test_it_is_found_through_a_link(clone, tmp_path):
    (tmp_path / "link").symlink_to(clone / "docs")
    assert Workspace.find(tmp_path / "link").root == clone


def test_a_folder_called_dvc_yaml_does_not_count(clone):
    (clone / "docs" / "dvc.yaml").mkdir()
    assert Workspace.find(clone / "docs" / "deep").root == clone


def test_outside_of_a_clone_it_says_where_to_go(tmp_path):
    with pytest.raises(InputError) as caught:
        Workspace.find(tmp_path)
    assert caught.value.place == str(tmp_path)
    assert "inside a clone" in caught.value.fix
    assert caught.value.exit_code == 2


def test_relative_paths_are_of_the_clone_absolute_ones_stay(clone):
    workspace = Workspace(clone)
    assert workspace.path("data/train.json") == clone / "data" / "train.json"
    assert workspace.path("/elsewhere/train.json") == Path("/elsewhere/train.json")


def test_every_file_lies_in_the_clone_and_none_of_ours_under_data(clone):
    workspace = Workspace(clone)
    named = {name: getattr(workspace, name) for name, part in vars(Workspace).items() if isinstance(part, property)}
    assert len(named) > 10
    for name, path in named.items():
        assert path.is_relative_to(clone)
        assert name == "data" or not path.is_relative_to(workspace.data)


@pytest.mark.parametrize(
    ("path", "watched"),
    [
        ("data/train.json", True),
        ("data/deep/../train.json", True),
        ("data", True),
        ("data/../train.json", False),
        ("database/train.json", False),
        ("/elsewhere/data/train.json", False),
    ],
)
def test_dvc_watches_what_lies_in_data(clone, path, watched):
    workspace = Workspace(clone)
    assert workspace.is_watched(workspace.path(path)) is watched
