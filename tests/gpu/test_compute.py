"""Training on a GPU: FlexAttention against dense attention, packs against separate sequences, no waiting.

Tolerances are relative 2-norms: for float32 without tf32, and for bfloat16, which rounds by 2^-9.
"""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from falcon_job.model.adapter import add_adapter
from falcon_job.model.attention import fused_attention
from falcon_job.model.compute import ComputeSettings, prepare_layers
from falcon_job.model.float8 import to_float8
from falcon_job.packing import Branch, Packer, Tree, completion_loss, dense_mask
from falcon_job.params import load_params
from falcon_job.training.self_check import compare, loss_and_gradients
from tests.tiny_models import VOCABULARY, falcon_7b_type, falcon_40b_type, llama_type, with_lora

CUDA = "cuda"
DEMO = Path(__file__).parents[2] / "presets" / "demo.yaml"
BUILDS = [falcon_7b_type, falcon_40b_type, llama_type]
SETTINGS = ComputeSettings("flex", "on", "off", 1024)
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def made_trees(count: int, seed: int = 0) -> list[Tree]:
    draw = random.Random(seed)

    def tokens(low: int, high: int) -> list[int]:
        return [draw.randrange(2, VOCABULARY) for _ in range(draw.randint(low, high))]

    return [
        Tree(
            tokens(60, 200),
            tuple(Branch([7, 8, *tokens(5, 12)], [*tokens(1, 5), 1]) for _ in range(draw.randint(1, 9))),
        )
        for _ in range(count)
    ]


def on_gpu(packer, trees):
    return [pack.to(CUDA) for pack in packer.make_packs(trees)]


def relative(value, reference):
    return float((value.float() - reference).norm() / reference.norm())


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("groups", "size"), [(1, 64), (2, 64), (8, 64), (2, 16), (2, 128), (2, 256)])
def test_one_layer_of_flex_attention_equals_dense_attention_in_float32(dtype, groups, size):
    pack = Packer.block_sparse(2048).make_pack(made_trees(6)).to(CUDA)
    length = len(pack)
    torch.manual_seed(0)
    shapes = [(1, heads, length, size) for heads in (8, groups, groups)]
    q, k, v = (torch.randn(*shape, device=CUDA, dtype=dtype, requires_grad=True) for shape in shapes)
    exact = [x.detach().float().requires_grad_() for x in (q, k, v)]
    gradient = torch.randn(1, length, 8, size, device=CUDA, dtype=dtype)

    output, _ = fused_attention(torch.nn.Identity(), q, k, v, pack.attention_mask())
    output.backward(gradient)
    expected = functional.scaled_dot_product_attention(
        *exact, attn_mask=dense_mask(pack.mask.visible_until), enable_gqa=True
    ).transpose(1, 2)
    expected.backward(gradient.float())

    assert relative(output, expected) < TOLERANCES[dtype]
    for ours, reference in zip((q, k, v), exact, strict=True):
        assert relative(ours.grad, reference.grad) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("build", "settings"),
    [
        *((build, SETTINGS) for build in BUILDS),
        (falcon_7b_type, replace(SETTINGS, activation_checkpointing="on")),
        (falcon_7b_type, replace(SETTINGS, compile="off")),
        (falcon_7b_type, replace(SETTINGS, compile="off", activation_checkpointing="on")),
    ],
)
def test_packs_equal_the_repeated_passage_in_the_same_kernel_and_shape(build, settings, dtype):
    model = with_lora(build(hidden_size=128), dtype).to(CUDA)
    prepare_layers(model.get_base_model(), settings)
    difference = compare(model, made_trees(3), settings.packer())

    assert max(difference.loss, difference.gradients) < TOLERANCES[dtype]


def test_activation_checkpointing_takes_less_memory_for_the_same_gradients():
    trees = made_trees(8)

    def gradients(checkpointing):
        model = with_lora(falcon_7b_type(hidden_size=128, num_hidden_layers=12)).to(CUDA)
        prepare_layers(model.get_base_model(), replace(SETTINGS, activation_checkpointing=checkpointing))
        model.train()
        for _ in range(2):  # compiles, then is measured
            model.zero_grad()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            for pack in on_gpu(SETTINGS.packer(), trees):
                completion_loss(model, pack).backward()
            peak = torch.cuda.max_memory_allocated() - before
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]), peak

    (kept, most), (again, least) = gradients("off"), gradients("on")

    assert relative(again, kept) < TOLERANCES[torch.float32]
    assert least < 0.6 * most


@pytest.mark.parametrize("build", BUILDS)
def test_packs_equal_dense_uncompiled_packs_in_float32(build):
    model = with_lora(build(hidden_size=128)).to(CUDA)
    trees = made_trees(4)

    def gradients(packer):
        model.zero_grad()
        loss = sum(completion_loss(model, pack) for pack in on_gpu(packer, trees))
        loss.backward()
        return torch.cat([loss.detach()[None], *(p.grad.flatten() for p in model.parameters() if p.requires_grad)])

    dense = gradients(Packer.dense(4096))
    prepare_layers(model.get_base_model(), SETTINGS)

    assert relative(gradients(Packer.block_sparse(4096)), dense) < TOLERANCES[torch.float32]


def test_a_pack_never_waits_for_the_gpu():
    model = with_lora(falcon_7b_type(hidden_size=128), torch.bfloat16).to(CUDA)
    prepare_layers(model.get_base_model(), SETTINGS)
    packs = on_gpu(Packer.block_sparse(1024), made_trees(8))
    for pack in packs:  # compiles
        completion_loss(model, pack).backward()

    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for pack in packs:
            completion_loss(model, pack).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_length_seen_before_is_not_compiled_again():
    model = with_lora(falcon_7b_type(hidden_size=128), torch.bfloat16).to(CUDA)
    prepare_layers(model.get_base_model(), SETTINGS)
    packer = Packer.block_sparse(1024)

    def train(seed):
        for pack in on_gpu(packer, made_trees(9, seed)):
            completion_loss(model, pack).backward()

    for seed in range(6):
        train(seed)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(6):
            train(seed)


@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_compiled_float8_layers_give_the_same_gradients(checkpointing):
    """torch 2.11 once compiled them without any. Larger weights than the default keep rounding small beside them."""
    trees = made_trees(4)

    def gradients(compile_):
        base = falcon_7b_type(hidden_size=128, initializer_range=0.05).to(torch.bfloat16)
        to_float8(base, base.get_output_embeddings(), torch.device(CUDA))
        model = add_adapter(base.to(CUDA).requires_grad_(requires_grad=False), load_params(DEMO).lora, seed=0)
        settings = replace(SETTINGS, compile=compile_, activation_checkpointing=checkpointing)
        prepare_layers(base, settings)
        return loss_and_gradients(model.train(), settings.packer().make_packs(trees))[1]

    assert relative(gradients("on"), gradients("off")) < 0.05
