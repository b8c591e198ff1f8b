"""Before a run: does this model, on these libraries, give a pack the loss and gradients of separate sequences?

Several models ignore the mask of a pack without a word, and training would go on with questions that see each other.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from falcon_job.errors import JobError
from falcon_job.model.float8 import wide_products
from falcon_job.packing.layout import Tree, lay_out
from falcon_job.params import Precision
from falcon_job.training.loss import answer_loss
from falcon_job.training.packs import Pack, PackForm, plain_sequence

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.1, "fp8": 0.1, "nf4": 0.1}
"""Largest relative difference of loss or gradients that rounding explains; a leak gives several times more."""
MAX_TREES = 3
MAX_BRANCHES = 3


@dataclass(frozen=True)
class Difference:
    """Packed against separate: |difference| / |separate|, of the loss and of all LoRA gradients (2-norms)."""

    loss: float
    gradients: float

    def __str__(self) -> str:
        return f"loss {self.loss:.1e}, gradients {self.gradients:.1e}"


def check_packing(model: nn.Module, trees: Sequence[Tree], precision: Precision, form: PackForm) -> Difference:
    """Compare one packed batch, made of the first of `trees`, with its separate sequences, computed as in training.

    But dropout is off, and float8 layers multiply in the type of the base. Gradients, random state and mode are left
    as they were.

    Raises:
        JobError: they differ by more than the precision's rounding.
    """
    difference = compare(model, sample(trees), form)
    tolerance = TOLERANCES[precision]
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
    was_training = model.training
    try:
        with _without_dropout(model), wide_products(model):
            packed, separate = (loss_and_gradients(model, packs) for packs in _packed_and_separate(trees, form))
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    return Difference(_relative(packed[0], separate[0]), _relative(packed[1], separate[1]))


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Turn dropout off, but leave layers that compute activations again in training mode, in which alone they do."""
    for module in model.modules():
        module.training = getattr(module, "gradient_checkpointing", False)
    config: Any = model.config
    dropouts = {name: value for name, value in vars(config).items() if "dropout" in name and isinstance(value, float)}
    vars(config).update(dict.fromkeys(dropouts, 0.0))  # Falcon's layers ask for theirs at each call
    try:
        yield
    finally:
        vars(config).update(dropouts)


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
