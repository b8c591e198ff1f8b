import json
import shutil

import pytest

from falcon_job.errors import InputError
from falcon_job.inference.bundle import open_bundle
from tests.inference.finished_run import exported_run, fresh_copy, make_params, write_params


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return exported_run(tmp_path_factory.mktemp("exported"))


@pytest.fixture
def workspace(tmp_path, exported):
    return fresh_copy(tmp_path / "clone", exported)


def test_an_export_and_the_files_of_the_clone_say_the_same(workspace):
    by_default, by_path, from_adapter = (open_bundle(f, workspace) for f in (None, workspace.export, workspace.adapter))
    assert by_default == by_path
    assert by_default.folder == workspace.export
    assert from_adapter.folder == workspace.adapter
    for name in ("base", "params", "template", "max_tokens", "answer_tokens", "closed_book"):
        assert getattr(by_path, name) == getattr(from_adapter, name), name


def test_without_an_export_the_adapter_is_used(workspace):
    shutil.rmtree(workspace.export)
    assert open_bundle(None, workspace).folder == workspace.adapter


def test_an_export_keeps_its_params_whatever_the_clone_has_now(workspace):
    write_params(workspace, make_params(evaluate={"max_new_tokens": 3}, prompt={"template": "seed"}))
    bundle = open_bundle(None, workspace)
    assert bundle.params.evaluate.max_new_tokens == 8
    assert bundle.template.name == "squad-v2"


def test_no_trained_model_is_an_error_that_says_what_to_run(workspace):
    shutil.rmtree(workspace.export)
    shutil.rmtree(workspace.adapter)
    with pytest.raises(InputError, match=r"build/adapter holds no adapter.*falcon-job run.*--from"):
        open_bundle(None, workspace)


@pytest.mark.parametrize("place", ["nowhere", "params.yaml", "build"])
def test_a_place_without_an_adapter_is_refused(workspace, place):
    with pytest.raises(InputError, match=f"{place} holds no adapter"):
        open_bundle(workspace.root / place, workspace)


def test_an_adapter_without_its_dataset_settings_says_so(workspace):
    (workspace.dataset / "settings.json").unlink()
    with pytest.raises(InputError, match=r"dataset/settings.json is missing: run `falcon-job run preprocess`"):
        open_bundle(workspace.adapter, workspace)


def cut(path):
    path.write_bytes(path.read_bytes()[:40])


def not_utf_8(path):
    path.write_bytes(b"\xff\xfe")


def without(*keys):
    return change(*keys, then=lambda group, key: group.pop(key))


def with_value(value, *keys):
    return change(*keys, then=lambda group, key: group.update({key: value}))


def change(*keys, then):
    def damage(path):
        content = json.loads(path.read_text())
        group = content
        for key in keys[:-1]:
            group = group[key]
        then(group, keys[-1])
        path.write_text(json.dumps(content))

    return damage


@pytest.mark.parametrize("name", ["settings.json", "prompt.json"])
@pytest.mark.parametrize("damage", [cut, not_utf_8])
def test_a_file_that_is_not_json_is_named(workspace, name, damage):
    damage(workspace.export / name)
    with pytest.raises(InputError, match="is not valid JSON") as caught:
        open_bundle(None, workspace)
    assert caught.value.place == str(workspace.export / name)
    assert "copy the export again" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        ("settings.json", without("base"), "base is missing: add it"),
        ("settings.json", without("params"), "params is missing: add it"),
        ("settings.json", without("dataset", "max_tokens"), "dataset.max_tokens is missing: add it"),
        ("settings.json", without("base", "files"), "base.files is missing: add it"),
        ("settings.json", without("params", "lora", "r"), "params.lora.r is missing: add it"),
        ("settings.json", with_value("80", "dataset", "max_tokens"), "dataset.max_tokens must be a whole number, not"),
        ("settings.json", with_value(1, "dataset", "tokens"), "dataset.tokens is not a known key: remove it"),
        ("settings.json", with_value([], "base"), "base must be an object"),
        ("settings.json", lambda path: path.write_text("[]"), "must be an object"),
        ("prompt.json", without("question"), "question is missing: add it"),
        ("prompt.json", with_value(3, "no_answer"), "no_answer must be text, not 3"),
        ("prompt.json", with_value("Passage: {text}", "passage"), "passage lacks {context}"),
    ],
)
def test_a_damaged_export_is_one_error_that_names_file_and_key(workspace, name, damage, problem):
    damage(workspace.export / name)
    with pytest.raises(InputError) as caught:
        open_bundle(None, workspace)
    error = caught.value
    assert error.place == str(workspace.export / name)
    assert [str(each).startswith(problem) for each in error.problems] == [True]
    assert "copy the export again" in error.fix
    assert error.exit_code == 2


def test_several_damaged_keys_are_listed_at_once(workspace):
    without("base", "files")(workspace.export / "settings.json")
    without("dataset", "closed_book")(workspace.export / "settings.json")
    with pytest.raises(InputError, match="has 2 problems"):
        open_bundle(None, workspace)


def test_an_export_without_its_prompt_says_what_to_do(workspace):
    (workspace.export / "prompt.json").unlink()
    with pytest.raises(InputError, match=r"prompt.json is missing: copy the export again, or make a new one"):
        open_bundle(None, workspace)


def test_damaged_dataset_settings_say_which_stage_writes_them(workspace):
    without("closed_book")(workspace.dataset / "settings.json")
    with pytest.raises(InputError, match=r"has 1 problem: run `falcon-job run preprocess`"):
        open_bundle(workspace.adapter, workspace)
