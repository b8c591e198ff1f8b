import json
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from falcon_job.errors import InputError
from falcon_job.machine import Machine
from falcon_job.params import Params, validate
from falcon_job.sources.base_model import locate
from falcon_job.stages.fetch import fetch
from falcon_job.workspace import Workspace

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    model = workspace.data / "tiny"
    model.mkdir(parents=True)
    save_file({"w": np.zeros(4, dtype=np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    for name in ("train.json", "dev.json"):
        (workspace.data / name).write_text('{"data": []}')
    return workspace


def params(**dataset) -> Params:
    content = YAML(typ="safe").load(ROOT / "presets" / "demo.yaml")
    content["model"] = {**content["model"], "source": "data/tiny", "revision": None}
    paths = {"train": "data/train.json", "dev": "data/dev.json", "train_sha256": None, "dev_sha256": None}
    content["dataset"] = {**paths, **dataset}
    return validate(content, "params.yaml")


def written(workspace):
    return {
        path.relative_to(workspace.build): path.read_bytes() for path in workspace.build.rglob("*.*") if path.is_file()
    }


def test_datasets_manifest_and_base_record_are_written(workspace):
    fetch(params(), Machine(), workspace)
    assert sorted(map(str, written(workspace))) == [
        "base.json",
        "raw/dev.json",
        "raw/manifest.json",
        "raw/train.json",
    ]
    assert locate(workspace) == workspace.data / "tiny"


def test_second_run_writes_the_same_bytes(workspace):
    fetch(params(), Machine(), workspace)
    first = written(workspace)
    fetch(params(), Machine(), workspace)
    assert written(workspace) == first


def test_outputs_hold_no_path_of_the_machine(workspace):
    fetch(params(), Machine(), workspace)
    assert all(str(workspace.root).encode() not in content for content in written(workspace).values())


def test_nothing_is_written_into_data(workspace):
    before = sorted(workspace.data.rglob("*"))
    fetch(params(), Machine(), workspace)
    assert sorted(workspace.data.rglob("*")) == before


def test_bad_dataset_leaves_no_output(workspace):
    with pytest.raises(InputError):
        fetch(params(dev="data/none.json"), Machine(), workspace)
    assert not workspace.base.exists()
    assert not workspace.raw.exists()


def test_bad_model_leaves_no_base_record(workspace):
    (workspace.data / "tiny" / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json"):
        fetch(params(), Machine(), workspace)
    assert not workspace.base.exists()
    assert json.loads((workspace.raw / "manifest.json").read_text()).keys() == {"train", "dev"}
