"""Check before a run that packs give the loss and gradients of separate sequences, with this model and these libraries.

Some models silently ignore the mask of a pack. Training would then finish without an error, although branches attend to
each other.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from falcon_job.errors import JobError
from falcon_job.model.float8 import products_in_input_dtype
from falcon_job.model.precision import PRECISIONS
from falcon_job.packing import Pack, Packer, Tree, completion_loss, plain_sequence
from falcon_job.packing.buckets import bucket
from falcon_job.params import Precision

logger = logging.getLogger(__name__)

MAX_TREES = 3
MAX_BRANCHES = 3


@dataclass(frozen=True)
class Difference:
    """Relative difference, |value - reference| / |reference|, of the loss and of all LoRA gradients (2-norms)."""

    loss: float
    gradients: float

    def __str__(self) -> str:
        return f"loss {self.loss:.1e}, gradients {self.gradients:.1e}"


def check_packing(model: nn.Module, trees: Sequence[Tree], precision: Precision, packer: Packer) -> Difference:
    """Return the difference between a pack of the first few `trees` and the same branches as separate sequences.

    Both are computed as in training, with two exceptions: dropout is off, and float8 layers multiply in the dtype of
    their input. How much multiplying in float8 changes is checked separately. Afterwards, gradients are cleared; random
    state and training mode are unchanged.

    Raises:
        JobError: they differ by more than the precision's rounding explains, or products in float8 change the gradients
            too much.
    """
    trees = sample(trees)
    spec = PRECISIONS[precision]
    if spec.product_tolerance is not None:
        _check_products(model, trees, packer, precision, spec.product_tolerance)
    difference = compare(model, trees, packer)
    tolerance = spec.self_check_tolerance
    if not max(difference.loss, difference.gradients) <= tolerance:
        raise JobError(
            "names a model that ignores the mask of a pack with the installed transformers, so that questions would "
            f"attend to each other (packed and separate sequences differ: {difference}; rounding explains at most "
            f"{tolerance:.0e})",
            place="model.source",
            fix="use a Falcon model with rotary positions, or a Llama-type model",
        )
    return difference


def sample(trees: Sequence[Tree]) -> list[Tree]:
    """Return a few trees with a few branches each, which is enough to reveal every kind of leak."""
    return [Tree(tree.prefix_ids, tree.branches[:MAX_BRANCHES]) for tree in trees[:MAX_TREES]]


def compare(model: nn.Module, trees: Sequence[Tree], packer: Packer) -> Difference:
    """Return the difference in loss and gradients between packed `trees` and separate sequences.

    With sdpa, separate sequences are ordinary ones, whose causal mask the model makes itself. With FlexAttention, each
    separate sequence gets a pack of the same length as the packed trees. So both use the same compiled kernel, and only
    rounding differs. float8 layers multiply in the dtype of their input, because their rounding would hide a leak.
    """
    with _without_dropout(model), products_in_input_dtype(model):
        packed, separate = (loss_and_gradients(model, packs) for packs in _packed_and_separate(trees, packer))
    return Difference(_relative(packed[0], separate[0]), _relative(packed[1], separate[1]))


def product_difference(model: nn.Module, trees: Sequence[Tree], packer: Packer) -> Difference:
    """Return how much loss and gradients change when the same rounded weights are multiplied in float8, not in bf16."""
    packed, _ = _packed_and_separate(trees, packer)
    with _without_dropout(model):
        narrow = loss_and_gradients(model, packed)
        with products_in_input_dtype(model):
            wide = loss_and_gradients(model, packed)
    return Difference(_relative(narrow[0], wide[0]), _relative(narrow[1], wide[1]))


def _check_products(
    model: nn.Module, trees: Sequence[Tree], packer: Packer, precision: Precision, tolerance: float
) -> None:
    difference = product_difference(model, trees, packer)
    if not max(difference.loss, difference.gradients) <= tolerance:
        raise JobError(
            "changes the gradients too much for training, with these weights and the installed torch "
            f"({difference}; at most {tolerance} is accepted)",
            place=f"model.precision {precision}",
            fix="use model.precision bf16",
        )
    logger.info("self-check: products in float8 differ from those in bf16 (%s)", difference)


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Turn dropout off. Layers with activation checkpointing stay in training mode, since they checkpoint only there.

    On exit, the training mode is restored and gradients are cleared.
    """
    was_training = model.training
    for module in model.modules():
        module.training = getattr(module, "gradient_checkpointing", False)
    config: Any = model.config
    dropouts = {name: value for name, value in vars(config).items() if "dropout" in name and isinstance(value, float)}
    vars(config).update(dict.fromkeys(dropouts, 0.0))  # Falcon's layers read the config at each call
    try:
        yield
    finally:
        vars(config).update(dropouts)
        model.zero_grad(set_to_none=True)
        model.train(was_training)


def _packed_and_separate(trees: Sequence[Tree], packer: Packer) -> tuple[list[Pack], list[Pack]]:
    separate = separate_sequences(trees)
    if not packer.buckets:
        return packer.make_packs(trees), [plain_sequence(sequence) for sequence in separate]
    length = bucket(max(map(len, trees)), packer.buckets)
    short = Packer(length, (length,))
    return short.make_packs(trees), [short.make_pack([sequence]) for sequence in separate]


def separate_sequences(trees: Sequence[Tree]) -> list[Tree]:
    """Return each branch with its own copy of the prefix."""
    return [Tree(tree.prefix_ids, (branch,)) for tree in trees for branch in tree.branches]


def loss_and_gradients(model: nn.Module, packs: Sequence[Pack]) -> tuple[Tensor, Tensor]:
    """Return the summed loss over all completion tokens of `packs`, and all LoRA gradients in one vector."""
    device = next(model.parameters()).device
    model.zero_grad(set_to_none=True)
    mixed = any(p.dtype == torch.float16 for p in model.parameters())  # these models are trained with autocast
    total = torch.zeros((), device=device)
    for pack in packs:
        with torch.autocast(device.type, torch.float16, enabled=mixed):
            loss = completion_loss(model, pack.to(device))  # not a mean: gradients would underflow in float16
        loss.backward()
        total = total + loss.detach()
    gradients = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    return total, torch.cat(gradients)


def _relative(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm().clamp(min=1e-30))
