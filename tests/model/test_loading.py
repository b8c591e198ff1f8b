import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, FalconConfig, FalconForCausalLM, T5Config

from falcon_job.errors import InputError, JobError, MachineError
from falcon_job.model import loading
from falcon_job.model.adapter import add_adapter
from falcon_job.model.attention import IMPLEMENTATION
from falcon_job.model.float8 import Float8Linear
from falcon_job.model.loading import four_bit_layers, load_base
from tests.inference.finished_run import CPU, make_params, randomize
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type

TYPES = {"falcon-7b": falcon_7b_type, "falcon-40b": falcon_40b_type, "llama": llama_type}
TARGETS = {"falcon-7b": ["query_key_value"], "falcon-40b": ["query_key_value", "dense"], "llama": ["q_proj", "v_proj"]}
IDS = torch.arange(1, 21)[None]


@pytest.fixture(params=[*TYPES])
def kind(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    falcon_7b_type().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_base_is_loaded_frozen_in_its_precision(tmp_path, kind, precision, dtype):
    TYPES[kind]().save_pretrained(tmp_path)
    model = load_base(tmp_path, precision, CPU)
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not model.training
    assert model.config._attn_implementation == IMPLEMENTATION
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype).eval()
        tolerance = 1e-5 if dtype == torch.float32 else 0.05  # our attention takes another kernel
        assert torch.allclose(model(input_ids=IDS).logits, plain(input_ids=IDS).logits, rtol=0, atol=tolerance)


@pytest.mark.container
def test_nf4_quantizes_every_linear_layer_but_the_head(tmp_path, kind):
    from bitsandbytes.nn import Linear4bit

    saved = TYPES[kind]()
    saved.save_pretrained(tmp_path)
    linear = {n for n, m in saved.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    model = load_base(tmp_path, "nf4", CPU)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    assert layers.keys() == linear
    assert set(four_bit_layers(model)) == linear
    for layer in layers.values():
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.quant_type == "nf4"
        assert layer.weight.quant_state.nested, "double quantization"
        assert layer.compute_dtype == torch.bfloat16
    others = {n: w.dtype for n, w in model.named_parameters() if w.dtype != torch.uint8}
    assert set(others.values()) == {torch.bfloat16}
    with torch.no_grad():
        got, expected = model(input_ids=IDS).logits.float(), saved.eval()(input_ids=IDS).logits
    assert torch.corrcoef(torch.stack([got.flatten(), expected.flatten()]))[0, 1] > 0.9


def test_a_4_bit_base_passes_gradients_to_float32_lora_weights(tmp_path, kind):
    TYPES[kind]().save_pretrained(tmp_path)
    lora = make_params(lora={"target_modules": TARGETS[kind]}).lora
    model = add_adapter(load_base(tmp_path, "nf4", CPU), lora, seed=0)
    randomize(model, 0.1)
    model.train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    for name, weight in trained.items():
        assert "lora_" in name
        assert weight.dtype == weight.grad.dtype == torch.float32
        assert weight.grad.abs().max() > 0
    assert all(weight.grad is None for name, weight in model.named_parameters() if name not in trained)


def test_a_layer_left_in_16_bits_stops_the_run(folder, monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr(loading, "quantizable_falcon", nullcontext)
    with pytest.raises(JobError, match=r"nf4 left 8 of 8 linear layers unquantized \(transformer.h.0.*bf16") as caught:
        load_base(folder, "nf4", CPU)
    assert caught.value.exit_code == 1


def test_a_single_layer_left_in_16_bits_is_named(folder):
    model = load_base(folder, "nf4", CPU)
    model.transformer.h[1].mlp.dense_4h_to_h = torch.nn.Linear(128, 32)
    with pytest.raises(JobError, match=r"1 of 8 linear .*\(transformer.h.1.mlp.dense_4h_to_h\)"):
        four_bit_layers(model)


def test_a_model_without_linear_layers_is_not_called_quantized(folder):
    model = load_base(folder, "fp32", CPU)
    model.transformer.h = torch.nn.ModuleList()
    with pytest.raises(JobError, match="none found"):
        four_bit_layers(model)


def test_alibi_is_refused(tmp_path):
    FalconConfig(alibi=True, hidden_size=32, num_attention_heads=4).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"holds a model with ALiBi \(such as Falcon-RW\).*use a rotary model"):
        load_base(tmp_path, "fp32", CPU)


def test_a_model_that_is_not_causal_is_refused(tmp_path):
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"holds a t5 model, which is not a causal .*: set model.source to another model"
    ) as caught:
        load_base(tmp_path, "fp32", CPU)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a model that transformers can load"):
        load_base(tmp_path, "fp32", CPU)


def test_an_unknown_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nonesuch"}')
    with pytest.raises(InputError, match="is not a model that transformers can load"):
        load_base(tmp_path, "fp32", CPU)


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "evil.EvilConfig"}}')
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="is not a model that transformers can load"):
        load_base(tmp_path, "fp32", CPU)


def refused(folder, precision="fp32"):
    """The error that loading raises; one line that says where and what to do."""
    with pytest.raises(InputError) as caught:
        load_base(folder, precision, CPU)
    assert "\n" not in str(caught.value)
    return caught.value


def test_pickled_weights_are_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    error = refused(folder)
    assert error.place == str(folder)
    assert error.problem.startswith("has weights that cannot be read (")


@pytest.mark.parametrize("kept", [0, 100, 50_000])
@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_weights_cut_short_are_refused_by_file(folder, kept, precision):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    error = refused(folder, precision)
    assert error.place == str(path)
    assert error.problem.startswith("is damaged (")
    assert error.fix.startswith("copy the model again")


@pytest.fixture
def shards(tmp_path):
    falcon_7b_type().save_pretrained(tmp_path, max_shard_size="30KB")
    return sorted(tmp_path.glob("*.safetensors"))


def test_the_damaged_one_of_several_files_is_named(shards):
    shards[2].write_bytes(shards[2].read_bytes()[:200])
    error = refused(shards[2].parent)
    assert (error.place, error.problem[:12]) == (str(shards[2]), "is damaged (")


def test_a_missing_file_is_named(shards):
    shards[1].unlink()
    error = refused(shards[1].parent)
    assert error.problem.startswith("has weights that cannot be read (")
    assert shards[1].name in error.problem


def test_a_damaged_index_is_named(shards):
    index = shards[0].with_name("model.safetensors.index.json")
    index.write_text(index.read_text()[:50])
    error = refused(index.parent)
    assert (error.place, error.problem[:12]) == (str(index), "is damaged (")


def test_a_missing_weight_is_refused_and_not_drawn_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    name = "transformer.h.1.self_attention.dense.weight"
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    error = refused(folder)
    assert (error.place, error.problem) == (str(folder), f"lacks 1 of the model's weights, such as {name}")


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_weights_of_another_shape_are_refused_with_both_shapes(folder, precision):
    weights = load_file(folder / "model.safetensors")
    name = "transformer.h.1.self_attention.dense.weight"
    weights[name] = torch.zeros(5, 7)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    error = refused(folder, precision)
    assert error.problem.startswith("has weights of other shapes than its config.json says (1 in all, such as ")
    assert f"{name}: found [5, 7], expected [32, 32]" in error.problem
    assert error.fix == "copy config.json and the weights from the same model"


def test_a_configuration_that_cannot_be_built_is_refused(folder):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": 33}))
    error = refused(folder)
    assert error.place == str(path)
    assert "hidden_size" in error.problem


def test_a_configuration_with_a_value_of_another_type_is_refused(folder):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": "wide"}))
    assert "hidden_size" in refused(folder).problem


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: unknown"), MemoryError(), KeyError("a mistake")])
def test_errors_that_are_not_about_the_files_are_raised_as_they_are(folder, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(FalconForCausalLM, "from_pretrained", fail)
    with pytest.raises(type(error)) as caught:
        load_base(folder, "fp32", CPU)
    assert caught.value is error


def test_tied_heads_are_not_missing(folder):
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_base(folder, "fp32", CPU)
    assert model.lm_head.weight is model.transformer.word_embeddings.weight


def test_float8_holds_every_linear_layer_but_the_head(folder, caplog):
    caplog.set_level("INFO")
    model = load_base(folder, "fp8", CPU)
    kinds = {name: type(m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}

    assert kinds.pop("lm_head") != Float8Linear
    assert set(kinds.values()) == {Float8Linear}
    assert f"fp8: {len(kinds)} linear layers multiply in float8" in caplog.text
    assert model.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in model.parameters())


def test_layers_that_float8_cannot_multiply_are_refused(tmp_path):
    falcon_7b_type(hidden_size=24).save_pretrained(tmp_path)

    with pytest.raises(InputError, match=r"multiples of 16, but .*query_key_value has 24 inputs .*: use bf16"):
        load_base(tmp_path, "fp8", CPU)


def test_dora_is_not_put_on_float8_weights(folder):
    lora = make_params().lora.model_copy(update={"use_dora": True})
    with pytest.raises(InputError, match=r"lora.use_dora does not work with float8 weights: set it to false"):
        add_adapter(load_base(folder, "fp8", CPU), lora, seed=0)


def test_a_model_too_large_for_the_device_does_not_fit_the_machine(folder, monkeypatch):
    def run_out(*args, **kwargs):
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(FalconForCausalLM, "from_pretrained", run_out)
    with pytest.raises(
        MachineError, match=r"in fp32 does not fit into the memory of cpu \(tried to allocate 80 GiB\).*nf4"
    ) as caught:
        load_base(folder, "fp32", CPU)
    assert caught.value.exit_code == 3
