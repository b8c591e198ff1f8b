"""Packed training equals separate sequences: loss and LoRA gradients, relative to each tensor's largest entry."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_job.packing import Branch, Packer, Tree, completion_loss
from tests.packing.strategies import TOKENS_PER_PACK, TREES
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type, with_lora

CASES = [
    pytest.param(falcon_7b_type, torch.float64, 1e-9, id="falcon-7b-float64"),
    pytest.param(falcon_40b_type, torch.float64, 1e-9, id="falcon-40b-float64"),
    pytest.param(llama_type, torch.float64, 1e-6, id="llama-float64"),
    pytest.param(falcon_7b_type, torch.float32, 1e-4, id="falcon-7b-float32"),
    pytest.param(falcon_40b_type, torch.float32, 1e-4, id="falcon-40b-float32"),
    pytest.param(llama_type, torch.float32, 1e-4, id="llama-float32"),
]
WITH_ANSWERS = st.lists(TREES, min_size=1, max_size=5).filter(
    lambda trees: any(branch.completion_ids for tree in trees for branch in tree.branches)
)


def separate_loss(model, trees):
    """The oracle: each question as its own row, the whole vocabulary at every position, the model's own mask."""
    total = torch.zeros((), dtype=torch.float64)
    for tree in trees:
        for branch in tree.branches:
            ids = torch.tensor([[*tree.prefix_ids, *branch.prompt_ids, *branch.completion_ids]])
            logits = model(input_ids=ids, use_cache=False).logits[0]
            start = len(tree.prefix_ids) + len(branch.prompt_ids)
            for i, token in enumerate(branch.completion_ids):
                total = total - logits[start + i - 1].log_softmax(-1)[token]
    return total


def packed_loss(model, trees, length):
    packs = Packer.dense(length).make_packs(trees)
    losses = [completion_loss(model, pack) for pack in packs if len(pack.targets)]
    return torch.stack(losses).sum()


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def check_packed_equals_separate(build, dtype, tolerance, trees, length, seed):
    model = with_lora(build(seed), dtype).eval()
    packed, separate = packed_loss(model, trees, length), separate_loss(model, trees)
    assert packed.item() == pytest.approx(separate.item(), rel=tolerance)

    packed_gradients, separate_gradients = gradients(model, packed), gradients(model, separate)
    assert packed_gradients.keys() == separate_gradients.keys()
    largest = max(gradient.abs().max().item() for gradient in separate_gradients.values())
    for name, gradient in separate_gradients.items():
        # a tensor whose gradient is rounding alone has no scale of its own
        scale = max(gradient.abs().max().item(), 1e-3 * largest)
        assert (packed_gradients[name] - gradient).abs().max().item() <= tolerance * scale, name


PACKED = {"trees": WITH_ANSWERS, "length": st.sampled_from([TOKENS_PER_PACK, 64, 512]), "seed": st.integers(0, 3)}


@pytest.mark.container
@pytest.mark.parametrize(("build", "dtype", "tolerance"), CASES)
@settings(max_examples=25)
@given(**PACKED)
def test_loss_and_gradients_equal_those_of_separate_sequences(build, dtype, tolerance, trees, length, seed):
    check_packed_equals_separate(build, dtype, tolerance, trees, length, seed)


@pytest.mark.slow
@pytest.mark.parametrize(("build", "dtype", "tolerance"), CASES)
@settings(max_examples=400)
@given(**PACKED)
def test_a_long_round_finds_no_exception_to_that(build, dtype, tolerance, trees, length, seed):
    check_packed_equals_separate(build, dtype, tolerance, trees, length, seed)


@pytest.mark.parametrize("build", [falcon_7b_type, falcon_40b_type, llama_type])
def test_without_the_mask_the_same_comparison_fails(build):
    """The comparison above can see a leak."""
    model = with_lora(build(), torch.float64).eval()
    trees = [Tree([1, 2, 3], (Branch([4], [5]), Branch([6], [7])))]
    (pack,) = Packer.dense(64).make_packs(trees)

    assert completion_loss(model, replace(pack, mask=None)).item() != pytest.approx(
        separate_loss(model, trees).item(), rel=1e-4
    )
