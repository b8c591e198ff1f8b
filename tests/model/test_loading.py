import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, FalconConfig, FalconForCausalLM, T5Config

from falcon_job.errors import InputError, JobError, MachineError
from falcon_job.machine import Machine
from falcon_job.model import loading
from falcon_job.model.adapter import add_adapter
from falcon_job.model.attention import IMPLEMENTATION
from falcon_job.model.float8 import Float8Linear
from falcon_job.model.loading import check_quantized, load_base
from falcon_job.model.precision import choose_device, compute_dtype
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
    assert check_quantized(model) == len(linear) >= 8
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


def test_gradients_flow_into_float32_lora_weights_on_a_4_bit_base(tmp_path, kind):
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
    with pytest.raises(
        JobError, match=r"nf4: 8 of 8 linear layers were not quantized \(transformer.h.0.*bf16"
    ) as caught:
        load_base(folder, "nf4", CPU)
    assert caught.value.exit_code == 1


def test_a_single_layer_left_in_16_bits_is_named(folder):
    model = load_base(folder, "nf4", CPU)
    model.transformer.h[1].mlp.dense_4h_to_h = torch.nn.Linear(128, 32)
    with pytest.raises(JobError, match=r"1 of 8 linear .*\(transformer.h.1.mlp.dense_4h_to_h\)"):
        check_quantized(model)


def test_a_model_without_linear_layers_is_not_called_quantized(folder):
    model = load_base(folder, "fp32", CPU)
    model.transformer.h = torch.nn.ModuleList()
    with pytest.raises(JobError, match="none found"):
        check_quantized(model)


def test_alibi_is_refused(tmp_path):
    FalconConfig(alibi=True, hidden_size=32, num_attention_heads=4).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"alibi \(Falcon-RW\).*use a rotary model"):
        load_base(tmp_path, "fp32", CPU)


def test_a_model_that_is_not_causal_is_refused(tmp_path):
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"a t5 model is no causal language model: name another model") as caught:
        load_base(tmp_path, "fp32", CPU)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(InputError, match="no model that transformers loads"):
        load_base(tmp_path, "fp32", CPU)


def test_an_unknown_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nonesuch"}')
    with pytest.raises(InputError, match="no model that transformers loads"):
        load_base(tmp_path, "fp32", CPU)


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "evil.EvilConfig"}}')
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="no model that transformers loads"):
        load_base(tmp_path, "fp32", CPU)


def test_pickled_weights_are_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="its weights cannot be loaded"):
        load_base(folder, "fp32", CPU)


def test_weights_cut_short_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"its weights cannot be loaded \(.*copy it again") as caught:
        load_base(folder, "fp32", CPU)
    assert "\n" not in str(caught.value)


def test_a_missing_weight_is_refused_and_not_drawn_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    name = "transformer.h.1.self_attention.dense.weight"
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"1 weights are missing \({name}\)"):
        load_base(folder, "fp32", CPU)


def test_weights_of_another_shape_are_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    falcon_7b_type(hidden_size=64).save_pretrained(other)
    shutil.copyfile(other / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(InputError, match="its weights cannot be loaded") as caught:
        load_base(folder, "fp32", CPU)
    assert "\n" not in str(caught.value)


def test_tied_heads_are_not_missing(folder):
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_base(folder, "fp32", CPU)
    assert model.lm_head.weight is model.transformer.word_embeddings.weight


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("nf4", torch.float16)]
)
def test_a_gpu_without_bf16_computes_4_bit_weights_in_fp16(precision, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert compute_dtype(precision, torch.device("cuda")) == dtype


def test_bf16_on_a_gpu_without_it_is_refused_with_what_to_use(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    with pytest.raises(MachineError, match=r"bf16 needs a GPU of compute capability .*: use fp16 or nf4"):
        load_base(folder, "bf16", torch.device("cuda"))


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_a_gpu_with_bf16_uses_it(precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert compute_dtype(precision, torch.device("cuda")) == torch.bfloat16


def test_float8_on_a_gpu_without_it_is_refused_with_what_to_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 6))
    with pytest.raises(MachineError, match=r"fp8 needs a GPU of compute capability 8.9 .*: use bf16 or nf4") as caught:
        compute_dtype("fp8", torch.device("cuda"))
    assert caught.value.exit_code == 3
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 9))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert compute_dtype("fp8", torch.device("cuda")) == torch.bfloat16


def test_float8_holds_every_linear_layer_but_the_head(folder, caplog):
    caplog.set_level("INFO")
    model = load_base(folder, "fp8", CPU)
    kinds = {name: type(m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}

    assert kinds.pop("lm_head") != Float8Linear
    assert set(kinds.values()) == {Float8Linear}
    assert f"fp8: {len(kinds)} linear layers multiply in float8" in caplog.text
    assert model.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in model.parameters())


def test_layers_that_float8_cannot_multiply_are_an_error_that_says_what_to_use(tmp_path):
    falcon_7b_type(hidden_size=24).save_pretrained(tmp_path)

    with pytest.raises(InputError, match=r"query_key_value takes 24 .* multiples of 16: use model.precision bf16"):
        load_base(tmp_path, "fp8", CPU)


def test_dora_is_not_put_on_float8_weights(folder):
    lora = make_params().lora.model_copy(update={"use_dora": True})
    with pytest.raises(InputError, match=r"lora.use_dora: not on float8 weights: set it to false"):
        add_adapter(load_base(folder, "fp8", CPU), lora, seed=0)


def test_half_precision_on_a_cpu_is_refused(folder):
    with pytest.raises(MachineError, match=r"fp16 needs a GPU.*bf16 or fp32") as caught:
        load_base(folder, "fp16", CPU)
    assert caught.value.exit_code == 3


def test_a_model_too_large_for_the_device_does_not_fit_the_machine(folder, monkeypatch):
    def run_out(*args, **kwargs):
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(FalconForCausalLM, "from_pretrained", run_out)
    with pytest.raises(MachineError, match=r"fp32 does not fit cpu \(tried to allocate 80 GiB\).*nf4") as caught:
        load_base(folder, "fp32", CPU)
    assert caught.value.exit_code == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_on_a_machine_without_it_is_refused():
    with pytest.raises(MachineError, match=r"FALCON_JOB_DEVICE=cuda, but .* unset it") as caught:
        choose_device(Machine(device="cuda"))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("value", ["auto", "cpu"])
def test_without_cuda_the_cpu_is_chosen(monkeypatch, value):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(Machine(device=value)) == CPU


@pytest.mark.parametrize(("value", "device"), [("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")])
def test_cuda_is_chosen_where_it_is_unless_the_cpu_is_asked_for(monkeypatch, value, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(Machine(device=value)) == torch.device(device)
