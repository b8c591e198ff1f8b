import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file

from falcon_job.errors import InputError
from falcon_job.model.adapter import add_adapter, load_adapter, save_adapter
from falcon_job.model.loading import load_base
from tests.inference.finished_run import CPU, finished_run, make_params, randomize
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type

ROOT = Path(__file__).parents[2]
MODEL = make_params().model
IDS = torch.arange(1, 21)[None]
NAMES = ["dense_h_to_4h", "query_key_value", "dense", "dense_4h_to_h"]


def lora(*targets, **changes):
    return make_params(lora={"target_modules": list(targets), **changes}).lora


def initial_weights(seed):
    model = add_adapter(falcon_7b_type(), lora(*NAMES), seed)
    return {name: weight.clone() for name, weight in model.named_parameters() if "lora_" in name}


def saved(folder, targets=("query_key_value", "dense"), **changes):
    """A trained adapter on disk and its logits."""
    folder.mkdir(parents=True, exist_ok=True)
    model = add_adapter(falcon_7b_type(), lora(*targets, **changes), seed=0)
    randomize(model, 0.1)
    save_adapter(model, folder, MODEL)
    return model.eval()(input_ids=IDS).logits


def test_a_fresh_adapter_is_float32_and_changes_nothing_yet():
    plain = falcon_7b_type().bfloat16()
    expected = plain.eval()(input_ids=IDS).logits
    model = add_adapter(plain.requires_grad_(False), lora("query_key_value"), seed=0)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert weights
    assert all("lora_" in name and weight.dtype == torch.float32 for name, weight in weights.items())
    torch.testing.assert_close(model.eval()(input_ids=IDS).logits, expected)


def test_the_seed_alone_decides_the_initial_weights():
    first = initial_weights(3)
    torch.manual_seed(99)
    torch.randn(17)
    again = initial_weights(3)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], weight) for name, weight in initial_weights(4).items())


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (falcon_7b_type, "dense, dense_4h_to_h, dense_h_to_4h, lm_head, query_key_value"),
        (falcon_40b_type, "dense, dense_4h_to_h, dense_h_to_4h, lm_head, query_key_value"),
        (llama_type, "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"),
    ],
)
@pytest.mark.parametrize("name", ["W_pack", "self_attention", "input_layernorm", "word_embeddings"])
def test_an_unknown_target_is_refused_with_the_layers_there_are(make, layers, name):
    with pytest.raises(InputError, match=rf"lora.target_modules names {name}, but .*: choose from {layers}$"):
        add_adapter(make(), lora(name), seed=0)


def test_one_unknown_target_among_known_ones_is_named_alone():
    with pytest.raises(InputError, match=r"lora.target_modules names q_proj, but the model has no such linear layers"):
        add_adapter(falcon_7b_type(), lora("query_key_value", "q_proj"), seed=0)


def test_a_saved_adapter_answers_the_same_when_loaded_again(tmp_path):
    expected = saved(tmp_path / "adapter")
    model = load_adapter(falcon_7b_type(), tmp_path / "adapter")
    assert torch.equal(model(input_ids=IDS).logits, expected)
    assert not model.training
    assert not any(weight.requires_grad for name, weight in model.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("changes", [{"use_rslora": True}, {"use_dora": True}], ids=["rslora", "dora"])
def test_variants_of_lora_come_back_from_disk(tmp_path, changes):
    expected = saved(tmp_path / "variant", **changes)
    torch.testing.assert_close(load_adapter(falcon_7b_type(), tmp_path / "variant")(input_ids=IDS).logits, expected)


def test_plain_peft_loads_a_saved_adapter(tmp_path):
    expected = saved(tmp_path / "adapter")
    model = PeftModel.from_pretrained(falcon_7b_type(), tmp_path / "adapter").eval()
    assert torch.equal(model(input_ids=IDS).logits, expected)


def test_an_adapter_names_its_base_and_peft_finds_it_there(tmp_path, monkeypatch):
    run = finished_run()
    monkeypatch.chdir(run.workspace.root)
    config = json.loads((run.workspace.adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("data/tiny", None)
    AutoPeftModelForCausalLM.from_pretrained(run.workspace.adapter)


def test_a_hub_model_is_named_with_its_revision(tmp_path):
    model = add_adapter(falcon_7b_type(), lora("query_key_value"), seed=0)
    save_adapter(model, tmp_path, make_params(model={"source": "tiiuae/falcon-7b", "revision": "0" * 40}).model)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("tiiuae/falcon-7b", "0" * 40)


def test_only_lora_weights_and_configuration_are_saved_readable_by_all(tmp_path):
    saved(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert all("lora_" in name and weight.dtype == torch.float32 for name, weight in weights.items())
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
    assert str(tmp_path) not in (tmp_path / "adapter_config.json").read_text()


SAVE = """
import sys
from pathlib import Path
from falcon_job.model.adapter import add_adapter, save_adapter
from falcon_job.params import LoraParams, ModelParams
from tests.tiny_models import falcon_7b_type
names = sys.argv[2].split(",")
lora = LoraParams(r=2, alpha=4, dropout=0, target_modules=names, use_rslora=False, use_dora=False)
base = ModelParams(source="data/tiny", revision=None, precision="fp32")
save_adapter(add_adapter(falcon_7b_type(), lora, seed=0), Path(sys.argv[1]), base)
"""


def test_equal_adapters_are_equal_bytes_whatever_the_hash_seed(tmp_path):
    running = []
    for seed, names in [("1", NAMES), ("2", NAMES[::-1])]:
        (tmp_path / seed).mkdir()
        command = [sys.executable, "-c", SAVE, str(tmp_path / seed), ",".join(names)]
        running.append(subprocess.Popen(command, env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}))
    assert [process.wait() for process in running] == [0, 0]
    found = [{path.name: path.read_bytes() for path in (tmp_path / seed).iterdir()} for seed in ("1", "2")]
    assert found[0] == found[1]
    assert json.loads(found[0]["adapter_config.json"])["target_modules"] == sorted(NAMES)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_an_adapter_is_refused_without_the_hub(tmp_path, name, monkeypatch):
    import socket

    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: pytest.fail("asked the network"))
    saved(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}: run `falcon-job run train`"):
        load_adapter(falcon_7b_type(), tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter_is_one_clear_error(tmp_path, name):
    saved(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged") as caught:
        load_adapter(falcon_7b_type(), tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.place == str(tmp_path / name)


@pytest.mark.parametrize("content", ["[]", "{}", '{"peft_type": "nonesuch"}', '{"peft_type": "LOHA"}', "{"])
def test_a_configuration_that_is_not_of_lora_is_refused(tmp_path, content):
    saved(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        load_adapter(falcon_7b_type(), tmp_path)
    assert caught.value.place == str(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("CUDA error"), OSError(5, "I/O error")])
def test_errors_that_are_not_about_the_adapter_are_raised_as_they_are(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    saved(tmp_path)
    monkeypatch.setattr(PeftModel, "from_pretrained", fail)
    with pytest.raises(type(error)) as caught:
        load_adapter(falcon_7b_type(), tmp_path)
    assert caught.value is error


@pytest.mark.parametrize(
    "make",
    [
        lambda: falcon_7b_type(num_hidden_layers=1),
        lambda: falcon_7b_type(num_hidden_layers=3),
        lambda: falcon_7b_type(hidden_size=64),
        llama_type,
    ],
    ids=["fewer layers", "more layers", "wider", "llama"],
)
def test_an_adapter_of_another_model_is_refused(tmp_path, make):
    saved(tmp_path)
    with pytest.raises(InputError, match=r"is (not )?an adapter for (another|this) model") as caught:
        load_adapter(make(), tmp_path)
    assert "\n" not in str(caught.value)
    assert (caught.value.place, caught.value.exit_code) == (str(tmp_path), 2)


def change_rank(weights):
    return {name: weight[:2] if "lora_A" in name else weight[:, :2] for name, weight in weights.items()}


def drop_one(weights):
    return dict(list(weights.items())[1:])


def add_one(weights):
    return {**weights, "base_model.model.extra": torch.zeros(1)}


@pytest.mark.parametrize("change", [change_rank, drop_one, add_one])
def test_weights_that_do_not_match_the_configuration_are_refused(tmp_path, change):
    saved(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({name: w.contiguous() for name, w in change(load_file(path)).items()}, path)
    with pytest.raises(
        InputError, match=r"is an adapter for another model \(mismatched weights: \d+, such as base_model"
    ):
        load_adapter(falcon_7b_type(), tmp_path)


def test_an_adapter_trained_on_4_bits_loads_on_the_same_base(tmp_path):
    falcon_7b_type().save_pretrained(tmp_path / "base")
    model = add_adapter(load_base(tmp_path / "base", "nf4", CPU), lora("query_key_value", "dense"), seed=0)
    randomize(model, 0.1)
    (tmp_path / "adapter").mkdir()
    save_adapter(model, tmp_path / "adapter", MODEL)
    with torch.no_grad():
        expected = model.eval()(input_ids=IDS).logits
        again = load_adapter(load_base(tmp_path / "base", "nf4", CPU), tmp_path / "adapter")(input_ids=IDS).logits
    assert torch.equal(again, expected)
