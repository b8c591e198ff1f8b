import json
import shutil

import pytest

from falcon_job.errors import InputError
from falcon_job.inference.bundle import open_package
from falcon_job.machine import Machine
from falcon_job.stages.evaluate import evaluate
from falcon_job.stages.export import export
from tests.inference.finished_run import finished_run, fresh_copy, make_params, write_params


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    run = finished_run()
    workspace = fresh_copy(tmp_path_factory.mktemp("exported"), run.workspace)
    evaluate(run.params, Machine(), workspace)
    export(run.params, Machine(), workspace)
    return workspace


@pytest.fixture
def workspace(tmp_path, exported):
    return fresh_copy(tmp_path / "clone", exported)


def test_an_export_and_the_files_of_the_clone_say_the_same(workspace):
    by_default, by_path, from_adapter = (
        open_package(f, workspace) for f in (None, workspace.export, workspace.adapter)
    )
    assert by_default == by_path
    assert by_default.folder == workspace.export
    assert from_adapter.folder == workspace.adapter
    for name in ("base", "params", "template", "max_tokens", "answer_tokens", "closed_book"):
        assert getattr(by_path, name) == getattr(from_adapter, name), name


def test_without_an_export_the_adapter_is_used(workspace):
    shutil.rmtree(workspace.export)
    assert open_package(None, workspace).folder == workspace.adapter


def test_an_export_keeps_its_params_whatever_the_clone_has_now(workspace):
    write_params(workspace, make_params(evaluate={"max_new_tokens": 3}, prompt={"template": "seed"}))
    package = open_package(None, workspace)
    assert package.params.evaluate.max_new_tokens == 8
    assert package.template.name == "squad-v2"


def test_no_trained_model_is_an_error_that_says_what_to_run(workspace):
    shutil.rmtree(workspace.export)
    shutil.rmtree(workspace.adapter)
    with pytest.raises(InputError, match=r"build/adapter holds no adapter.*falcon-job run.*--from"):
        open_package(None, workspace)


@pytest.mark.parametrize("place", ["nowhere", "params.yaml", "build"])
def test_a_place_without_an_adapter_is_refused(workspace, place):
    with pytest.raises(InputError, match=f"{place} holds no adapter"):
        open_package(workspace.root / place, workspace)


def test_an_adapter_without_its_dataset_settings_says_so(workspace):
    (workspace.dataset / "settings.json").unlink()
    with pytest.raises(InputError, match=r"dataset/settings.json is missing: run `falcon-job run preprocess`"):
        open_package(workspace.adapter, workspace)


def cut(path):
    path.write_bytes(path.read_bytes()[:40])


def without(*keys):
    def remove(path):
        content = json.loads(path.read_text())
        group = content
        for key in keys[:-1]:
            group = group[key]
        del group[keys[-1]]
        path.write_text(json.dumps(content))

    return remove


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("settings.json", cut, "settings.json is damaged"),
        ("settings.json", without("base"), "settings are damaged .'base'"),
        ("settings.json", without("params"), "settings are damaged .'params'"),
        ("settings.json", without("dataset", "max_tokens"), "settings are damaged .*max_tokens"),
        ("settings.json", without("base", "files"), "settings are damaged"),
        ("settings.json", without("params", "lora", "r"), "settings.json: 1 problem"),
        ("prompt.json", cut, "prompt.json is damaged"),
        ("prompt.json", without("question"), "settings are damaged .*question"),
        ("prompt.json", lambda path: path.unlink(), "prompt.json is missing"),
    ],
)
def test_a_damaged_export_is_one_clear_error(workspace, name, damage, message):
    damage(workspace.export / name)
    with pytest.raises(InputError, match=message) as caught:
        open_package(None, workspace)
    assert "build/export" in str(caught.value)
    assert caught.value.exit_code == 2
