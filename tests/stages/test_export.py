import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from falcon_job.errors import InputError, JobError
from falcon_job.inference.verification import answer_logits, sample_trees
from falcon_job.machine import Machine
from falcon_job.model.adapter import load_adapter
from falcon_job.model.precision import PRECISIONS
from falcon_job.stages import export as stage
from falcon_job.stages.evaluate import evaluate
from falcon_job.stages.export import export
from tests.inference.finished_run import base_of, finished_run, fresh_copy, make_params

FILES = {
    *("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("prompt.json", "settings.json", "README.md", "SHA256SUMS"),
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    run = finished_run()
    workspace = fresh_copy(tmp_path_factory.mktemp("evaluated"), run.workspace)
    evaluate(run.params, Machine(), workspace)
    return workspace


@pytest.fixture
def workspace(tmp_path, evaluated):
    return fresh_copy(tmp_path / "clone", evaluated)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, evaluated):
    """Exported and merged once; do not change it."""
    workspace = fresh_copy(tmp_path_factory.mktemp("exported"), evaluated)
    export(make_params(export={"merge": True}), Machine(), workspace)
    return workspace


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_package_holds_all_it_needs(exported):
    assert {path.name for path in exported.export.iterdir()} == FILES
    assert {path.stat().st_mode & 0o777 for path in exported.export.iterdir()} == {0o644}


def test_sha256sum_accepts_the_package_and_notices_damage(exported, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(exported.export, copy)
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    result = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True)
    assert {line.removesuffix(": OK") for line in result.stdout.splitlines()} == FILES - {"SHA256SUMS"}
    (copy / "prompt.json").write_text("{}")
    assert subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode == 1


def test_the_lines_of_the_model_card_load_the_export_with_the_same_logits(exported, tmp_path, monkeypatch):
    copy = tmp_path / "elsewhere"
    shutil.copytree(exported.export, copy)
    (code,) = re.findall(r"```python\n(.*?)```", (copy / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(exported.root)
    names: dict = {}
    exec(code.replace("FOLDER", str(copy)), names)
    rows = sample_trees(exported, 4)
    expected = answer_logits(load_adapter(base_of(exported), exported.adapter), rows)
    for a, b in zip(answer_logits(names["model"].eval(), rows), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    prompt = read(copy / "prompt.json")
    whole = prompt["passage"].format(context=rows[0].context) + prompt["question"].format(
        question=rows[0].questions[0].question
    )
    ids = names["tokenizer"](whole)["input_ids"]
    assert ids == [*rows[0].prefix_ids, *rows[0].questions[0].prompt_ids]


def test_settings_name_the_base_by_hash_and_hold_the_params(exported):
    settings = read(exported.export / "settings.json")
    assert settings["base"] == read(exported.base)
    weights = (exported.data / "tiny" / "model.safetensors").read_bytes()
    assert settings["base"]["files"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert settings["params"] == make_params(export={"merge": True}).model_dump()
    assert settings["dataset"] == read(exported.dataset / "settings.json")
    assert settings["threshold"] is None
    assert set(settings["provenance"]) >= {"date", "commit", "libraries"}


def test_nothing_exported_names_a_path_of_the_machine(exported):
    for folder in (exported.export, exported.dist / "tiny-squad-v2"):
        for path in folder.iterdir():
            assert str(exported.root).encode() not in path.read_bytes(), path.name
    assert str(exported.root) not in (exported.reports / "export.json").read_text()


def test_the_adapter_names_its_base_as_params_do(exported):
    assert read(exported.export / "adapter_config.json")["base_model_name_or_path"] == "data/tiny"


def test_the_report_says_what_was_checked(exported):
    report = read(exported.reports / "export.json")
    assert report["largest_logit_difference"] == 0
    assert report["verified_questions"] >= 4
    assert report["files"] == len(FILES)
    assert report["bytes"] == sum(path.stat().st_size for path in exported.export.iterdir())


def test_the_merged_model_needs_no_peft_and_its_hashes_are_reported(exported):
    target = exported.dist / "tiny-squad-v2"
    merged = read(exported.reports / "export.json")["merged"]
    assert merged["name"] == target.name
    assert merged["sha256"] == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in target.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= merged["sha256"].keys()
    rows = sample_trees(exported, 4)
    expected = answer_logits(load_adapter(base_of(exported), exported.adapter), rows)
    found = answer_logits(AutoModelForCausalLM.from_pretrained(target).eval(), rows)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_nothing_is_merged_unless_asked_for(workspace):
    export(finished_run().params, Machine(), workspace)
    assert not workspace.dist.exists()
    assert "merged" not in read(workspace.reports / "export.json")


@pytest.mark.parametrize("precision", ["fp8", "nf4"])
def test_a_quantized_run_is_exported_and_merged(workspace, precision):
    export(make_params(model={"precision": precision}, export={"merge": True}), Machine(), workspace)
    report = read(workspace.reports / "export.json")
    assert report["largest_logit_difference"] == 0
    assert report["merged"]["drift"] > 0
    assert AutoModelForCausalLM.from_pretrained(workspace.dist / "tiny-squad-v2").dtype == torch.bfloat16


def test_exporting_again_replaces_the_package(workspace):
    export(finished_run().params, Machine(), workspace)
    (workspace.export / "left over").write_text("x")
    export(finished_run().params, Machine(), workspace)
    assert {path.name for path in workspace.export.iterdir()} == FILES


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(content)


def drop_a_weight(path):
    tensors = load_file(path)
    save_file(dict(sorted(tensors.items())[1:]), path, metadata={"format": "pt"})


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip_a_bit, drop_a_weight, halve])
def test_a_copy_damaged_on_the_way_is_no_export(workspace, monkeypatch, damage):
    honest = shutil.copyfile

    def copy_badly(source, target):
        honest(source, target)
        if target.name == "adapter_model.safetensors":
            damage(target)

    monkeypatch.setattr(stage.shutil, "copyfile", copy_badly)
    before = sorted(workspace.build.iterdir())
    with pytest.raises(JobError, match="adapter") as caught:
        export(finished_run().params, Machine(), workspace)
    assert caught.value.exit_code == 1
    assert sorted(workspace.build.iterdir()) == before, "no build/export, whole or half"
    assert not (workspace.reports / "export.json").exists()


def test_the_tokenizer_of_another_model_is_no_export(workspace, monkeypatch):
    honest = stage.load_tokenizer

    def load_another(folder):
        tokenizer = honest(folder)
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content["model"]["merges"] = content["model"]["merges"][:5]
        other = type(tokenizer.backend_tokenizer).from_str(json.dumps(content))
        tokenizer._tokenizer = other
        return tokenizer

    monkeypatch.setattr(stage, "load_tokenizer", load_another)
    with pytest.raises(JobError, match="tokenizer and prompt give other tokens"):
        export(finished_run().params, Machine(), workspace)
    assert not workspace.export.exists()


def test_a_prompt_changed_since_preprocess_is_no_export(workspace):
    with pytest.raises(JobError, match="tokenizer and prompt give other tokens"):
        export(make_params(prompt={"template": "seed"}), Machine(), workspace)
    assert not workspace.export.exists()


def test_a_refused_merge_leaves_nothing_in_dist_and_no_report(workspace, monkeypatch):
    monkeypatch.setitem(PRECISIONS, "fp32", replace(PRECISIONS["fp32"], merge_drift=-1.0))
    with pytest.raises(JobError, match=r"set export.merge to false"):
        export(make_params(export={"merge": True}), Machine(), workspace)
    assert list(workspace.dist.iterdir()) == []
    assert not (workspace.reports / "export.json").exists()


def test_a_base_changed_on_disk_is_refused(workspace):
    flip_a_bit(workspace.data / "tiny" / "model.safetensors")
    with pytest.raises(InputError, match=r"is not the file that build/base.json records") as caught:
        export(finished_run().params, Machine(), workspace)
    assert caught.value.exit_code == 2
    assert not workspace.export.exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("build/adapter/adapter_model.safetensors", r"build/adapter has no adapter_model.safetensors: run"),
        ("build/adapter", r"build/adapter/adapter_config.json is missing: run `falcon-job run train`"),
        ("reports/eval.json", r"reports/eval.json is missing: run `falcon-job run evaluate`"),
    ],
)
def test_a_missing_input_is_one_clear_error(workspace, missing, message):
    path = workspace.path(missing)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=message) as caught:
        export(finished_run().params, Machine(), workspace)
    assert "\n" not in str(caught.value)
    assert not workspace.export.exists()
