import pytest
import torch
from transformers import FalconConfig, FalconForCausalLM

from falcon_job.errors import MachineError
from falcon_job.model.engine import Engine, choose_engine, decoder_layers, free_bytes, training_bytes
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type, with_lora

GB = 1e9


@pytest.fixture(scope="module")
def falcon_7b():
    """Falcon-7B's shape in bf16 with LoRA on query_key_value, without memory."""
    with torch.device("meta"):
        model = FalconForCausalLM(FalconConfig(alibi=False)).requires_grad_(requires_grad=False)
    return with_lora(model, torch.bfloat16).get_base_model()


@pytest.fixture
def gpu_with(monkeypatch):
    """Pretend that flex runs here and that so many GB are free beside the weights."""

    def pretend(gigabytes):
        monkeypatch.setattr("falcon_job.model.engine.choose_kernel", lambda *_: "flex")
        monkeypatch.setattr("falcon_job.model.engine.free_bytes", lambda _: gigabytes * GB)

    return pretend


@pytest.mark.parametrize("build", [falcon_7b_type, falcon_40b_type, llama_type])
def test_decoder_layers_are_found_under_an_adapter_too(build):
    model = with_lora(build(num_hidden_layers=3)).get_base_model()

    assert len(decoder_layers(model)) == 3
    assert all("Decoder" in type(layer).__name__ for layer in decoder_layers(model))


def test_on_a_cpu_packs_are_dense_layers_as_they_are_and_activations_kept():
    assert choose_engine(falcon_7b_type(), 384) == Engine("sdpa", "off", "off", 2048)


@pytest.mark.parametrize(("slots", "checkpointing", "measured"), [(8192, "off", 22.3), (2048, "on", 1.2)])
def test_the_estimate_for_falcon_7b_is_a_little_above_what_an_h200_took(falcon_7b, slots, checkpointing, measured):
    """Peaks of benchmarks/results/2026-11-23-h200-train.json less the weights."""
    assert measured < training_bytes(falcon_7b, slots, checkpointing) / GB < 1.3 * measured


@pytest.mark.parametrize(
    ("free", "tokens", "checkpointing"),
    [(120, 8192, "off"), (20, 4096, "off"), (10, 2048, "off"), (4, 4096, "on"), (3, 2048, "on"), (1, 2048, "on")],
)
def test_the_fastest_setting_that_fits_free_memory_is_chosen(falcon_7b, gpu_with, free, tokens, checkpointing):
    gpu_with(free)

    assert choose_engine(falcon_7b, 384) == Engine("flex", "on", checkpointing, tokens)


def test_what_the_machine_settings_say_holds_and_the_rest_fits_itself_to_it(falcon_7b, gpu_with, set_machine):
    gpu_with(10)
    set_machine(tokens_per_pack="5000")
    assert choose_engine(falcon_7b, 384) == Engine("flex", "on", "on", 4992), "whole blocks"
    set_machine(activation_checkpointing="off")
    assert choose_engine(falcon_7b, 384) == Engine("flex", "on", "off", 4992), "it may not fit: the user's word"
    set_machine(compile="off")
    assert choose_engine(falcon_7b, 384) == Engine("flex", "off", "off", 4992)


def test_a_pack_holds_the_longest_sequence_whatever_the_memory(falcon_7b, gpu_with):
    gpu_with(1)

    assert choose_engine(falcon_7b, 3000).tokens_per_pack == 3072


def test_packs_below_the_longest_sequence_are_refused(set_machine):
    set_machine(tokens_per_pack="500")

    with pytest.raises(MachineError, match=r"FALCON_JOB_TOKENS_PER_PACK=500 \(packs of 500\) is below .*=600"):
        choose_engine(falcon_7b_type(), 600)


def test_memory_has_no_limit_on_a_cpu():
    assert free_bytes(torch.device("cpu")) == float("inf")
