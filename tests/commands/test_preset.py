"""Presets: listed, copied unchanged, refused if unknown or bad."""

import shutil
from pathlib import Path

import pytest

from falcon_job.commands.preset import list_presets, write_preset
from falcon_job.errors import InputError
from falcon_job.params import load_params
from falcon_job.workspace import Workspace

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    (tmp_path / "params.yaml").write_text("old: true\n")
    return Workspace(tmp_path)


def test_the_list_shows_each_preset_with_its_first_comment(workspace):
    (workspace.root / "presets" / "own.yaml").write_text("# Mine alone.\n# More.\nmodel: {}\n")
    lines = list_presets(workspace).splitlines()
    assert [line.split()[0] for line in lines] == sorted([*SHIPPED, "own"])
    assert next(line for line in lines if line.startswith("own")).split(maxsplit=1)[1] == "Mine alone."


@pytest.mark.parametrize(("text", "line"), [("", "own"), ("model: {}\n", "own"), ("#Mine\n", "own             Mine")])
def test_a_preset_without_a_comment_is_listed_by_name(workspace, text, line):
    (workspace.root / "presets" / "own.yaml").write_text(text)
    assert line in list_presets(workspace).splitlines()


def test_every_shipped_preset_says_what_it_is_for(workspace):
    for line in list_presets(workspace).splitlines():
        assert len(line.split()) > 2, line


@pytest.mark.parametrize("name", SHIPPED)
def test_a_preset_is_copied_unchanged_and_can_be_loaded(workspace, name):
    write_preset(workspace, name)
    assert workspace.params.read_text() == (ROOT / "presets" / f"{name}.yaml").read_text()
    load_params(workspace.params)


@pytest.mark.parametrize("name", ["falcon", "", ".", "../params", "demo.yaml", "DEMO"])
def test_an_unknown_preset_is_refused_with_a_list_of_presets(workspace, name):
    with pytest.raises(InputError) as refused:
        write_preset(workspace, name)
    assert str(refused.value).startswith(f"preset {name} does not exist: choose one of these\n")
    assert [str(problem).split()[0] for problem in refused.value.problems] == SHIPPED
    assert workspace.params.read_text() == "old: true\n"


def test_a_bad_preset_leaves_params_unchanged(workspace):
    demo = (ROOT / "presets" / "demo.yaml").read_text()
    (workspace.root / "presets" / "own.yaml").write_text(demo.replace("learning_rate", "learning_rat"))
    with pytest.raises(InputError, match=r"own\.yaml has 2 problems\n(.*\n)*.*did you mean train\.learning_rate\?"):
        write_preset(workspace, "own")
    assert workspace.params.read_text() == "old: true\n"
