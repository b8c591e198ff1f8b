"""Before a run: does this model, on these libraries, give a pack the loss and gradients of separate sequences?

Several models ignore the mask of a pack without a word, and training would go on with questions that see each other.
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
from falcon_job.packing.layout import Tree, lay_out
from falcon_job.packing.loss import answer_loss
from falcon_job.packing.pack import Pack, PackForm, plain_sequence
from falcon_job.params import Precision

logger = logging.getLogger(__name__)

MAX_TREES = 3
MAX_BRANCHES = 3


@dataclass(frozen=True)
class Difference:
    """|difference| / |reference|, of the loss and of all LoRA gradients (2-norms)."""

    loss: float
    gradients: float

    def __str__(self) -> str:
        return f"loss {self.loss:.1e}, gradients {self.gradients:.1e}"


def check_packing(model: nn.Module, trees: Sequence[Tree], precision: Precision, form: PackForm) -> Difference:
    """Compare one packed batch, made of the first of `trees`, with its separate sequences, computed as in training.

    But dropout is off, and float8 layers multiply in the type of the base; what their own products change is compared
    apart. Gradients, random state and mode are left as they were.

    Raises:
        JobError: packed and separate differ by more than the precision's rounding, or float8's gradients by too much.
    """
    trees = sample(trees)
    spec = PRECISIONS[precision]
    if spec.product_tolerance is not None:
        _check_float8(model, trees, form, spec.product_tolerance)
    difference = compare(model, trees, form)
    tolerance = spec.self_check_tolerance
    if not max(difference.loss, difference.gradients) <= tolerance:
        raise JobError(
            f"self-check: packed and separate sequences differ ({difference}, at most {tolerance:.0e} is rounding): "
            "this model ignores the mask of a pack on the installed transformers, and training would let questions "
            "see each other; use a Falcon (rotary) or Llama-type model"
        )
    return difference


def sample(trees: Sequence[Tree]) -> list[Tree]:
    """Return a few trees with a few branches each: enough for every kind of leak to show."""
    return [Tree(tree.prefix_ids, tree.branches[:MAX_BRANCHES]) for tree in trees[:MAX_TREES]]


def compare(model: nn.Module, trees: Sequence[Tree], form: PackForm) -> Difference:
    """Return how far the loss and gradients of packed `trees` are from those of separate sequences.

    Under sdpa these are ordinary sequences, masked by the model itself. The block-sparse kernel gets the passage with
    each question, in packs of the same length: what differs is rounding of the same kernel, compiled once. float8
    layers multiply in the type of the base meanwhile: their rounding makes more of small differences than a leak does.
    """
    with _without_dropout(model), products_in_input_dtype(model):
        packed, separate = (loss_and_gradients(model, packs) for packs in _packed_and_separate(trees, form))
    return Difference(_relative(packed[0], separate[0]), _relative(packed[1], separate[1]))


def float8_difference(model: nn.Module, trees: Sequence[Tree], form: PackForm) -> Difference:
    """Return how far loss and gradients of packed `trees` are from those with the same rounded weights multiplied in
    the type of the base."""
    packed, _ = _packed_and_separate(trees, form)
    with _without_dropout(model):
        narrow = loss_and_gradients(model, packed)
        with products_in_input_dtype(model):
            wide = loss_and_gradients(model, packed)
    return Difference(_relative(narrow[0], wide[0]), _relative(narrow[1], wide[1]))


def _check_float8(model: nn.Module, trees: Sequence[Tree], form: PackForm, tolerance: float) -> None:
    difference = float8_difference(model, trees, form)
    if not max(difference.loss, difference.gradients) <= tolerance:
        raise JobError(
            f"self-check: products in float8 change the gradients too much ({difference}, at most {tolerance}): "
            "these weights, or the installed torch, cannot train so; use model.precision bf16"
        )
    logger.info("self-check: float8 products against bf16 ones (%s)", difference)


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Turn dropout off, but leave layers that compute activations again in training mode, in which alone they do.

    Gradients and mode are afterwards as they were.
    """
    was_training = model.training
    for module in model.modules():
        module.training = getattr(module, "gradient_checkpointing", False)
    config: Any = model.config
    dropouts = {name: value for name, value in vars(config).items() if "dropout" in name and isinstance(value, float)}
    vars(config).update(dict.fromkeys(dropouts, 0.0))  # Falcon's layers ask for theirs at each call
    try:
        yield
    finally:
        vars(config).update(dropouts)
        model.zero_grad(set_to_none=True)
        model.train(was_training)


def _packed_and_separate(trees: Sequence[Tree], form: PackForm) -> tuple[list[Pack], list[Pack]]:
    separate = separate_sequences(trees)
    if not form.lengths:
        return form.make_packs(trees), [plain_sequence(sequence) for sequence in separate]
    length = next(length for length in form.lengths if length >= max(map(len, trees)))
    short = PackForm(length, (length,))
    return short.make_packs(trees), [short.make_pack(lay_out([sequence])) for sequence in separate]


def separate_sequences(trees: Sequence[Tree]) -> list[Tree]:
    """Return each question with its own copy of the passage."""
    return [Tree(tree.prefix_ids, (branch,)) for tree in trees for branch in tree.branches]


def loss_and_gradients(model: nn.Module, packs: Sequence[Pack]) -> tuple[Tensor, Tensor]:
    """Return the summed loss over all answer tokens of `packs` and the gradients of all trained weights, flat."""
    device = next(model.parameters()).device
    model.zero_grad(set_to_none=True)
    mixed = any(p.dtype == torch.float16 for p in model.parameters())  # trained under autocast
    total = torch.zeros((), device=device)
    for pack in packs:
        inputs = {name: tensor.to(device) for name, tensor in pack.items()}
        with torch.autocast(device.type, torch.float16, enabled=mixed):
            loss = answer_loss(model, inputs)  # undivided: small gradients would vanish in float16
        loss.backward()
        total = total + loss.detach()
    gradients = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    return total, torch.cat(gradients)


def _relative(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm().clamp(min=1e-30))
