import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import FalconConfig, FalconForCausalLM

from falcon_job.errors import MachineError
from falcon_job.machine import Machine
from falcon_job.model.engine import (
    Engine,
    choose_engine,
    decoder_layers,
    free_bytes,
    pack_sizes,
    training_bytes,
)
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type, with_lora

GB = 1e9


@pytest.fixture(scope="module")
def falcon_7b():
    """Falcon-7B's shape in bf16 with LoRA on query_key_value, without memory."""
    with torch.device("meta"):
        model = FalconForCausalLM(FalconConfig(alibi=False)).requires_grad_(requires_grad=False)
    return with_lora(model, torch.bfloat16).get_base_model()


@pytest.fixture
def free(monkeypatch):
    """Pretend that so many GB are free beside the weights."""
    return lambda gigabytes: monkeypatch.setattr("falcon_job.model.engine.free_bytes", lambda _: gigabytes * GB)


def chosen(model, kernel="flex", longest=384, **settings):
    machine = Machine(**settings)
    return choose_engine(model, kernel, pack_sizes(kernel, longest, machine), machine)


@pytest.mark.parametrize("build", [falcon_7b_type, falcon_40b_type, llama_type])
def test_decoder_layers_are_found_under_an_adapter_too(build):
    model = with_lora(build(num_hidden_layers=3)).get_base_model()

    assert len(decoder_layers(model)) == 3
    assert all("Decoder" in type(layer).__name__ for layer in decoder_layers(model))


def test_on_a_cpu_packs_are_dense_layers_as_they_are_and_activations_kept():
    assert chosen(falcon_7b_type(), "sdpa") == Engine("sdpa", "off", "off", 2048)


@pytest.mark.parametrize(("slots", "checkpointing", "measured"), [(8192, "off", 22.3), (2048, "on", 1.2)])
def test_the_estimate_for_falcon_7b_is_somewhat_above_what_an_h200_took(falcon_7b, slots, checkpointing, measured):
    """Peaks of benchmarks/results/2026-11-23-h200-train.json less the weights."""
    estimate = training_bytes(falcon_7b, Engine("flex", "on", checkpointing, slots)) / GB

    assert 1.1 * measured < estimate < 1.3 * measured


@pytest.mark.parametrize(
    ("gigabytes", "tokens", "checkpointing"),
    [(120, 8192, "off"), (20, 4096, "off"), (10, 2048, "off"), (4, 4096, "on"), (3, 2048, "on"), (1, 2048, "on")],
)
def test_the_fastest_setting_that_fits_free_memory_is_chosen(falcon_7b, free, gigabytes, tokens, checkpointing):
    free(gigabytes)

    assert chosen(falcon_7b) == Engine("flex", "on", checkpointing, tokens)


def test_where_nothing_fits_the_smallest_is_tried_with_a_warning_that_says_what_to_do(falcon_7b, free, caplog):
    free(1)
    chosen(falcon_7b)
    assert "takes about 1.4 GB beside the weights and 0.9 GB are free" in caplog.text
    assert "FALCON_JOB_TOKENS_PER_PACK lower" in caplog.text
    caplog.clear()
    free(120)
    chosen(falcon_7b)
    assert not caplog.text


def test_what_the_machine_settings_say_holds_and_the_rest_fits_itself_to_it(falcon_7b, free):
    free(10)
    settings = {"tokens_per_pack": 5000}
    assert chosen(falcon_7b, **settings) == Engine("flex", "on", "on", 4992), "whole blocks"
    settings["activation_checkpointing"] = "off"
    assert chosen(falcon_7b, **settings) == Engine("flex", "on", "off", 4992), "it may not fit: the user's word"
    settings["compile"] = "off"
    assert chosen(falcon_7b, **settings) == Engine("flex", "off", "off", 4992)


def test_layers_that_are_not_compiled_are_reckoned_to_keep_more(falcon_7b, free):
    free(30.5)
    assert chosen(falcon_7b).tokens_per_pack == 8192
    assert chosen(falcon_7b, compile="off").tokens_per_pack == 4096


def test_dora_dropout_and_the_states_of_the_optimizer_take_memory_too(falcon_7b, free):
    def shape(**settings):
        with torch.device("meta"):
            model = FalconForCausalLM(FalconConfig(alibi=False)).to(torch.bfloat16).requires_grad_(requires_grad=False)
            lora = LoraConfig(target_modules=["query_key_value"], task_type="CAUSAL_LM", **settings)
            return get_peft_model(model, lora).get_base_model()

    def needs(model):
        return training_bytes(model, Engine("flex", "on", "off", 8192))

    assert needs(shape(r=16, lora_dropout=0.1)) > needs(shape(r=16))
    assert needs(shape(r=16, use_dora=True)) > 2 * needs(shape(r=16))
    free(30.5)
    assert chosen(shape(r=16)).tokens_per_pack == 8192
    assert chosen(shape(r=1024)).tokens_per_pack == 4096


def test_a_model_without_activation_checkpointing_is_not_given_it(free, monkeypatch):
    model = falcon_7b_type()
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    free(0)
    assert chosen(model).activation_checkpointing == "off"
    with pytest.raises(MachineError, match="CHECKPOINTING=on: a falcon model has none on the installed transformers"):
        chosen(model, activation_checkpointing="on")


def test_of_a_model_whose_layers_are_not_known_nothing_is_compiled_and_packs_are_small(monkeypatch):
    model = falcon_7b_type()
    monkeypatch.setattr(model, "_no_split_modules", None)

    assert chosen(model) == Engine("flex", "off", "off", 2048)


def test_a_pack_holds_the_longest_sequence_whatever_the_memory(falcon_7b, free):
    free(1)

    assert chosen(falcon_7b, longest=3000).tokens_per_pack == 3072


def test_packs_below_the_longest_sequence_are_refused():
    machine = Machine(tokens_per_pack=700)

    assert pack_sizes("sdpa", 700, machine) == [700]
    with pytest.raises(MachineError, match=r"FALCON_JOB_TOKENS_PER_PACK=700 \(packs of 640\) is below .*=700"):
        pack_sizes("flex", 700, machine)


def test_memory_has_no_limit_on_a_cpu():
    assert free_bytes(torch.device("cpu")) == float("inf")


@pytest.mark.parametrize(("free_on_gpu", "share", "expected"), [(30, 1.0, 33), (30, 0.25, 13), (5, 1.0, 8)])
def test_free_is_what_others_and_the_process_s_share_leave_and_what_torch_holds_unused(
    monkeypatch, free_on_gpu, share, expected
):
    """Of 80 GB torch has reserved 10 and uses 7."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_on_gpu * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: share)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 7 * GB)

    assert free_bytes(torch.device("cuda")) == expected * GB
