import hashlib
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from falcon_job.errors import InputError
from falcon_job.params import ModelParams
from falcon_job.sources.base_model import PinnedModel, locate, pin
from falcon_job.workspace import Workspace

TENSOR = {"w": np.arange(8, dtype=np.float32)}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def folder(workspace):
    folder = workspace.data / "tiny"
    folder.mkdir(parents=True)
    save_file(TENSOR, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "falcon"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "README.md").write_text("not hashed")
    (folder / "modeling_falcon.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


def local(source="data/tiny"):
    return ModelParams(source=source, revision=None, precision="fp32")


def shard(folder):
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        save_file(TENSOR, folder / name)
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return names


def refusal(workspace, source="data/tiny"):
    """Return the message of pin's InputError, which is one line and names the key."""
    with pytest.raises(InputError) as caught:
        pin(local(source), workspace)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def mismatch(workspace):
    with pytest.raises(InputError) as caught:
        locate(workspace)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_file_that_matters_is_hashed_and_no_other(folder, workspace):
    pinned = pin(local(), workspace)
    wanted = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert list(pinned.files) == wanted
    for name in wanted:
        assert pinned.files[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_record_is_the_same_in_another_clone_and_holds_no_path(folder, workspace, tmp_path_factory):
    pin(local(), workspace).write(workspace.base)
    other = Workspace(tmp_path_factory.mktemp("other"))
    other.data.symlink_to(workspace.data)
    pin(local(), other).write(other.base)
    assert workspace.base.read_bytes() == other.base.read_bytes()
    assert str(workspace.root).encode() not in workspace.base.read_bytes()


def test_record_survives_writing_and_reading(folder, workspace):
    pinned = pin(local(), workspace)
    pinned.write(workspace.base)
    assert PinnedModel.read(workspace.base) == pinned
    assert [path.name for path in workspace.build.iterdir()] == ["base.json"]


def test_folder_outside_data_is_taken_with_a_warning(folder, workspace, caplog):
    folder.rename(workspace.root / "elsewhere")
    with caplog.at_level(logging.WARNING):
        pin(local("elsewhere"), workspace)
    assert "DVC does not track it" in caplog.text


def test_folder_inside_data_needs_no_warning(folder, workspace, caplog):
    pin(local(), workspace)
    assert caplog.text == ""


def test_sharded_weights_are_taken(folder, workspace):
    names = shard(folder)
    assert set(names) < set(pin(local(), workspace).files)


def test_missing_folder_explains_that_a_hub_id_needs_a_revision(workspace):
    message = refusal(workspace, "tiiuae/falcon-7b")
    assert message.startswith("model.source: ")
    assert "model.revision" in message
    assert "40 hex" in message


def test_pickled_weights_alone_are_refused(folder, workspace):
    (folder / "model.safetensors").unlink()
    message = refusal(workspace)
    assert "pickled weights" in message
    assert "save_pretrained" in message


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_part_is_named(folder, workspace, name):
    (folder / name).unlink()
    assert name in refusal(workspace)


def test_missing_shard_is_named(folder, workspace):
    names = shard(folder)
    (folder / names[1]).unlink()
    assert names[1] in refusal(workspace)


@pytest.mark.parametrize("content", ["no json", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"w": {}}}'])
def test_damaged_index_of_shards_is_named(folder, workspace, content):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refusal(workspace)


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"", save(TENSOR)[:-1]])
def test_git_lfs_pointer_or_cut_weights_are_named(folder, workspace, content):
    (folder / "model.safetensors").write_bytes(content)
    message = refusal(workspace)
    assert str(folder / "model.safetensors") in message
    assert "git lfs pull" in message


def test_located_folder_is_the_pinned_one(folder, workspace):
    pin(local(), workspace).write(workspace.base)
    assert locate(workspace) == folder


def test_record_of_an_export_is_located_without_base_json(folder, workspace):
    assert locate(workspace, pin(local(), workspace)) == folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_changed_file_is_caught(folder, workspace, name):
    pin(local(), workspace).write(workspace.base)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    message = mismatch(workspace)
    assert str(folder / name) in message
    assert "dvc repro -f fetch" in message


def test_removed_file_is_caught(folder, workspace):
    pin(local(), workspace).write(workspace.base)
    (folder / "tokenizer_config.json").unlink()
    assert "tokenizer_config.json" in mismatch(workspace)


def test_added_file_that_would_change_the_tokens_is_caught(folder, workspace):
    pin(local(), workspace).write(workspace.base)
    (folder / "added_tokens.json").write_text("{}")
    assert "added_tokens.json" in mismatch(workspace)


def test_locate_before_fetch_says_to_fetch(workspace):
    assert "falcon-job fetch" in mismatch(workspace)


@pytest.mark.parametrize(
    "content", ["", "<<<<<<< HEAD", "{}", '{"source": "x", "revision": null, "files": {"a": "b"}}']
)
def test_damaged_record_says_to_fetch_again(workspace, content):
    workspace.build.mkdir()
    workspace.base.write_text(content)
    assert "dvc repro -f fetch" in mismatch(workspace)


def test_resolver_imports_neither_torch_nor_transformers():
    check = "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    program = f"import sys, falcon_job.sources.base_model; {check}"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
