import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import FalconConfig, FalconForCausalLM

from falcon_job.model.memory import decoder_layers, free_bytes, optimizer_bytes, pack_bytes
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type, with_lora

GB = 1e9


def falcon_7b(**lora):
    """Falcon-7B's shape in bf16 with LoRA on query_key_value, without memory."""
    with torch.device("meta"):
        model = FalconForCausalLM(FalconConfig(alibi=False)).to(torch.bfloat16).requires_grad_(requires_grad=False)
        config = LoraConfig(target_modules=["query_key_value"], task_type="CAUSAL_LM", **lora)
        return get_peft_model(model, config).get_base_model()


@pytest.mark.parametrize("build", [falcon_7b_type, falcon_40b_type, llama_type])
def test_decoder_layers_are_found_under_an_adapter_too(build):
    layers = decoder_layers(with_lora(build(num_hidden_layers=3)).get_base_model())

    assert len(layers) == 3
    assert all("DecoderLayer" in type(layer).__name__ for layer in layers)


@pytest.mark.parametrize(("tokens", "checkpointed", "measured"), [(8192, False, 22.3), (2048, True, 1.2)])
def test_the_estimate_for_falcon_7b_is_somewhat_above_what_an_h200_took(tokens, checkpointed, measured):
    """Peaks of benchmarks/results/2026-11-23-h200-train.json less the weights."""
    estimate = pack_bytes(falcon_7b(r=4), tokens, compiled=True, checkpointed=checkpointed) / GB

    assert 1.1 * measured < estimate < 1.3 * measured


def test_dropout_dora_and_layers_not_compiled_take_more():
    def estimate(compiled=True, **lora):
        return pack_bytes(falcon_7b(r=16, **lora), 8192, compiled=compiled, checkpointed=False)

    assert estimate(lora_dropout=0.1) > estimate()
    assert estimate(use_dora=True) > 2 * estimate()
    assert estimate(compiled=False) > 1.5 * estimate()


def test_the_optimizer_takes_memory_for_trained_weights_alone():
    layers, inputs, outputs = 32, 4544, 4544 + 2 * 64

    assert optimizer_bytes(falcon_7b(r=4)) == 12 * layers * 4 * (inputs + outputs)


def test_memory_has_no_limit_on_a_cpu():
    assert free_bytes(torch.device("cpu")) == float("inf")


@pytest.mark.parametrize(("free_on_gpu", "share", "expected"), [(30, 1.0, 33), (30, 0.25, 13), (5, 1.0, 8)])
def test_free_memory_counts_what_torch_holds_unused_and_the_process_share(monkeypatch, free_on_gpu, share, expected):
    """Of 80 GB torch has reserved 10 and uses 7."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_on_gpu * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: share)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 7 * GB)

    assert free_bytes(torch.device("cuda")) == expected * GB
