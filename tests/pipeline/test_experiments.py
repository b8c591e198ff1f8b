"""`dvc exp run`, at once and queued."""

import hashlib
import json

import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.pipeline


def test_a_small_learning_rate_given_to_exp_run_trains(experiment, trained):
    text = experiment.clone.read("params.yaml").decode()
    assert "learning_rate: 1e-05" in text, "DVC writes what PyYAML reads as a string"
    assert YAML(typ="safe").load(text)["train"]["learning_rate"] == 0.00001
    rates = [line.split(b",")[4] for line in experiment.clone.read("reports/history.csv").splitlines()[1:]]
    assert 0 < max(map(float, filter(None, rates))) <= 0.00001
    name = "build/adapter/adapter_model.safetensors"
    assert experiment.clone.read(name) != trained.clone.read(name)


def test_exp_run_refuses_a_key_that_params_do_not_have(clone):
    refused = clone.dvc("exp", "run", "--set-param", "train.learning_rat=1", check=False)
    assert refused.returncode != 0
    assert "learning_rat" in refused.stderr
    assert not clone.git("status", "--porcelain")


def test_a_queued_experiment_uses_the_code_and_data_of_its_own_copy(clone):
    sha256 = hashlib.sha256(clone.read("data/train.json")).hexdigest()
    clone.dvc("exp", "run", "--queue", "--name", "queued", "--set-param", f"dataset.train_sha256={sha256}")

    for stage in ("fetch", "export"):
        (clone.root / "falcon_job" / "stages" / f"{stage}.py").write_text("raise SystemExit('code of the workspace')\n")
    (clone.root / "data" / "train.json").write_text("data of the workspace")
    clone.dvc("queue", "start", "--jobs", "1")
    clone.wait_for(lambda: _queue_state(clone) not in ("Queued", "Running"))

    logs = clone.dvc("queue", "logs", "queued", check=False).stdout
    assert _queue_state(clone) == "Success", logs
    assert "Running stage 'fetch'" in logs
    assert "Running stage 'export'" in logs
    (commit,) = clone.git("for-each-ref", "--format=%(objectname)", "refs/exps/**/queued").split()
    assert sha256 in clone.git("show", f"{commit}:params.yaml")
    assert json.loads(clone.git("show", f"{commit}:reports/export.json"))["verified_questions"]
    assert clone.read("data/train.json") == b"data of the workspace"
    clone.dvc("queue", "stop", "--kill", check=False)


def _queue_state(clone) -> str:
    status = clone.dvc("queue", "status").stdout
    (row,) = [line for line in status.splitlines() if "queued" in line.split()]
    return row.split()[-1]
