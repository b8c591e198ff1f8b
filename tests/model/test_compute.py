import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import FalconConfig, FalconForCausalLM

from falcon_job.errors import MachineError
from falcon_job.machine import Machine
from falcon_job.model.compute import ComputeSettings, choose_settings, prepare_layers, tokens_per_pack_choices
from falcon_job.model.memory import decoder_layers
from falcon_job.packing import Branch, Packer, Tree, completion_loss
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type, with_lora

GB = 1e9
TREES = [Tree([1, 2, 3, 4], (Branch([5, 6], [7, 0]), Branch([8], [9, 0])))]


def falcon_7b_shape(**lora):
    with torch.device("meta"):
        model = FalconForCausalLM(FalconConfig(alibi=False)).to(torch.bfloat16).requires_grad_(requires_grad=False)
        config = LoraConfig(target_modules=["query_key_value"], task_type="CAUSAL_LM", **lora)
        return get_peft_model(model, config).get_base_model()


@pytest.fixture(scope="module")
def falcon_7b():
    """Falcon-7B's shape in bf16 with LoRA on query_key_value, without memory."""
    return falcon_7b_shape(r=4)


@pytest.fixture
def free(monkeypatch):
    """Pretend that so many GB are free beside the weights."""
    return lambda gigabytes: monkeypatch.setattr("falcon_job.model.compute.free_bytes", lambda _: gigabytes * GB)


def chosen(model, kernel="flex", longest=384, **settings):
    machine = Machine(**settings)
    return choose_settings(model, kernel, tokens_per_pack_choices(kernel, longest, machine), machine)


def test_on_a_cpu_nothing_is_compiled_and_activations_are_kept():
    assert chosen(falcon_7b_type(), "sdpa") == ComputeSettings("sdpa", "off", "off", 2048)


@pytest.mark.parametrize(
    ("gigabytes", "tokens", "checkpointing"),
    [(120, 8192, "off"), (20, 4096, "off"), (10, 2048, "off"), (4, 4096, "on"), (3, 2048, "on"), (1, 2048, "on")],
)
def test_the_fastest_settings_that_fit_free_memory_are_chosen(falcon_7b, free, gigabytes, tokens, checkpointing):
    free(gigabytes)

    assert chosen(falcon_7b) == ComputeSettings("flex", "on", checkpointing, tokens)


def test_where_nothing_fits_the_smallest_is_tried_with_a_warning(falcon_7b, free, caplog):
    free(1)
    chosen(falcon_7b)
    assert "needs about 1.4 GB in addition to the weights, but only 0.9 GB are free" in caplog.text
    assert "lower FALCON_JOB_TOKENS_PER_PACK" in caplog.text
    caplog.clear()
    free(120)
    chosen(falcon_7b)
    assert not caplog.text


def test_what_the_machine_settings_name_is_kept_and_the_rest_chosen(falcon_7b, free):
    free(10)
    settings = {"tokens_per_pack": 5000}
    assert chosen(falcon_7b, **settings) == ComputeSettings("flex", "on", "on", 4992), "whole blocks"
    settings["activation_checkpointing"] = "off"
    assert chosen(falcon_7b, **settings) == ComputeSettings("flex", "on", "off", 4992), "even if it may not fit"
    settings["compile"] = "off"
    assert chosen(falcon_7b, **settings) == ComputeSettings("flex", "off", "off", 4992)


def test_packs_are_shorter_where_layers_are_not_compiled(falcon_7b, free):
    free(30.5)
    assert chosen(falcon_7b).tokens_per_pack == 8192
    assert chosen(falcon_7b, compile="off").tokens_per_pack == 4096


def test_packs_are_shorter_where_the_optimizer_takes_much_memory(free):
    free(30.5)
    assert chosen(falcon_7b_shape(r=16)).tokens_per_pack == 8192
    assert chosen(falcon_7b_shape(r=1024)).tokens_per_pack == 4096


def test_checkpointing_is_refused_where_the_model_does_not_support_it(free, monkeypatch):
    model = falcon_7b_type()
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    free(0)
    assert chosen(model).activation_checkpointing == "off"
    with pytest.raises(MachineError, match="CHECKPOINTING=on is not supported by falcon models") as caught:
        chosen(model, activation_checkpointing="on")
    assert caught.value.fix == "unset it"


def test_a_model_without_known_layers_is_not_compiled_and_gets_short_packs():
    model = falcon_7b_type()
    model.transformer.h = torch.nn.ModuleList()

    assert chosen(model) == ComputeSettings("flex", "off", "off", 2048)


def test_a_pack_holds_the_longest_sequence_whatever_the_memory(falcon_7b, free):
    free(1)

    assert chosen(falcon_7b, longest=3000).tokens_per_pack == 3072


def test_packs_below_the_longest_sequence_are_refused():
    machine = Machine(tokens_per_pack=700)

    assert tokens_per_pack_choices("sdpa", 700, machine) == [700]
    with pytest.raises(MachineError, match=r"FALCON_JOB_TOKENS_PER_PACK=700 \(packs of 640 tokens\) is below .*=700"):
        tokens_per_pack_choices("flex", 700, machine)


def gradients(model):
    (pack,) = Packer.dense(64).make_packs(TREES)
    model.train()
    completion_loss(model, pack).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("build", [falcon_7b_type, falcon_40b_type, llama_type])
def test_activation_checkpointing_gives_the_same_gradients(build):
    expected = gradients(with_lora(build()))
    model = with_lora(build())
    prepare_layers(model.get_base_model(), ComputeSettings("sdpa", "off", "on", 64))
    runs = []
    for layer in decoder_layers(model.get_base_model()):
        next(layer.children()).register_forward_pre_hook(lambda *_: runs.append(1))

    assert torch.equal(gradients(model), expected)
    assert len(runs) == 2 * 2, "two layers, each twice"
