import pytest
import torch
from peft import LoraConfig, get_peft_model

from falcon_job.errors import JobError
from falcon_job.model.compute import ComputeSettings, prepare_layers
from falcon_job.model.float8 import Float8Product, to_float8
from falcon_job.model.memory import decoder_layers
from falcon_job.model.precision import PRECISIONS
from falcon_job.packing import Branch, Packer, Tree
from falcon_job.training.self_check import MAX_BRANCHES, MAX_TREES, check_packing, compare, sample
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type, with_lora

PACKER = Packer.dense(256)
TREES = [
    Tree([1, 2, 3, 4 + i], (Branch([5, 6], [7, 0]), Branch([8], [9, 0]), Branch([10, 11, 12], [13, 14, 0])))
    for i in range(5)
]


@pytest.mark.parametrize("build", [falcon_7b_type, falcon_40b_type, llama_type])
def test_a_model_that_obeys_the_mask_passes_far_inside_the_tolerance(build):
    difference = check_packing(with_lora(build()), TREES, "fp32", PACKER)

    assert max(difference.loss, difference.gradients) < 1e-5


def test_a_fresh_adapter_is_checked_through_its_gradients():
    model = with_lora(falcon_7b_type())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)

    assert check_packing(model, TREES, "fp32", PACKER).gradients < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_eager_attention_which_adds_a_bool_mask_is_stopped(precision):
    """A real silent failure of transformers: no error, other numbers."""
    model = with_lora(falcon_7b_type(attn_implementation="eager"))

    with pytest.raises(JobError, match=r"ignores the mask .*packed and separate sequences differ"):
        check_packing(model, TREES, precision, PACKER)


def test_the_tolerance_of_bf16_tells_rounding_from_a_leak():
    obeying = compare(with_lora(falcon_7b_type(), torch.bfloat16), sample(TREES), PACKER)
    leaking = compare(with_lora(falcon_7b_type(attn_implementation="eager"), torch.bfloat16), sample(TREES), PACKER)

    assert max(obeying.loss, obeying.gradients) < PRECISIONS["bf16"].self_check_tolerance / 2
    assert max(leaking.loss, leaking.gradients) > 2 * PRECISIONS["bf16"].self_check_tolerance


def test_a_loss_that_is_not_finite_does_not_pass():
    model = with_lora(falcon_7b_type())
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).fill_(float("nan"))

    with pytest.raises(JobError, match="differ"):
        check_packing(model, TREES, "fp32", PACKER)


def test_the_check_leaves_mode_gradients_and_random_state_alone():
    model = with_lora(falcon_7b_type(), dropout=0.5).train()
    state = torch.get_rng_state()
    check_packing(model, TREES, "fp32", PACKER)

    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_sample_holds_several_trees_of_several_branches():
    trees = sample(TREES)

    assert len(trees) == MAX_TREES > 1
    assert all(len(tree.branches) == MAX_BRANCHES > 1 for tree in trees)


def test_checkpointed_layers_recompute_but_drop_nothing_out():
    model = with_lora(falcon_7b_type(), dropout=0.5).train()
    prepare_layers(model.get_base_model(), ComputeSettings("sdpa", "off", "on", 256))
    layer = decoder_layers(model.get_base_model())[0]
    runs = []
    next(layer.children()).register_forward_pre_hook(lambda *_: runs.append(1))

    assert check_packing(model, TREES, "fp32", PACKER).gradients < 1e-5
    sequences = MAX_TREES * MAX_BRANCHES
    assert len(runs) == 2 * (1 + sequences), "one pack and its sequences, each twice"
    assert layer.training


@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_the_dropout_of_the_base_itself_is_off_too(checkpointing):
    model = with_lora(falcon_7b_type(hidden_dropout=0.3, attention_dropout=0.3)).train()
    prepare_layers(model.get_base_model(), ComputeSettings("sdpa", "off", checkpointing, 256))

    assert check_packing(model, TREES, "fp32", PACKER).gradients < 1e-5
    assert model.config.hidden_dropout == 0.3


def test_the_rounding_of_float8_is_not_taken_for_a_leak():
    def deep(**changes):
        model = falcon_7b_type(hidden_size=64, num_hidden_layers=12, **changes).to(torch.bfloat16)
        to_float8(model, model.get_output_embeddings(), torch.device("cpu"))
        lora = LoraConfig(r=4, target_modules=["query_key_value"], task_type="CAUSAL_LM")
        return get_peft_model(model.requires_grad_(requires_grad=False), lora)

    assert check_packing(deep(), TREES, "fp8", PACKER).gradients < 0.03, "0.075 with products in float8"
    with pytest.raises(JobError, match="ignores the mask"):
        check_packing(deep(attn_implementation="eager"), TREES, "fp8", PACKER)


def test_a_float8_layer_that_loses_gradients_stops_the_run(monkeypatch):
    """As a compiler once did, without a word."""
    model = falcon_7b_type().to(torch.bfloat16)
    to_float8(model, model.get_output_embeddings(), torch.device("cpu"))
    lora = LoraConfig(r=4, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    model = get_peft_model(model.requires_grad_(requires_grad=False), lora)

    def lose(ctx, gradient):
        weight, _ = ctx.saved_tensors
        return gradient.new_zeros(*gradient.shape[:-1], weight.shape[1]), None, None

    monkeypatch.setattr(Float8Product, "backward", lose)

    with pytest.raises(JobError, match=r"fp8 changes the gradients .* use model.precision bf16"):
        check_packing(model, TREES, "fp8", PACKER)
