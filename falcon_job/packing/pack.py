"""A pack: a micro-batch of one row. The DataLoader prepares its tensors, so the training step never waits for them."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from falcon_job.packing.buckets import bucket, distribute, first_fit, length_buckets
from falcon_job.packing.layout import IGNORED, lay_out
from falcon_job.packing.mask import BLOCK, BlockSparseMask, dense_mask
from falcon_job.packing.tree import Tree


@dataclass(frozen=True, slots=True)
class Pack:
    """One row of L slots that holds B branches with N completion tokens in total.

    Attributes:
        input_ids: int64 [1, L].
        position_ids: int64 [1, L]; None for a plain sequence, whose positions the model computes itself.
        mask: bool [1, 1, L, L] for sdpa, block-sparse for FlexAttention, None for a plain causal sequence.
        predicting: the slots whose outputs predict a completion token, int64 [N].
        targets: the completion tokens, branch after branch, int64 [N].
        keys: the key of each of the B branches, in the same order.
        completion_lengths: number of completion tokens of each branch; they add up to N.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    mask: Tensor | BlockSparseMask | None
    predicting: Tensor
    targets: Tensor
    keys: tuple[Hashable, ...]
    completion_lengths: tuple[int, ...]

    def __len__(self) -> int:
        """Return L, including padding."""
        return self.input_ids.shape[1]

    def first_targets(self) -> Tensor:
        """Return where the completion of each branch begins in `targets`, int64 [B], if none is empty."""
        starts = np.cumsum([0, *self.completion_lengths[:-1]])
        return torch.from_numpy(starts).to(self.targets.device)

    def prompt_slots(self) -> list[Tensor]:
        """Return the slots of each branch's prompt, including its prefix, int64 in the order of positions.

        These are the slots that the first completion token attends to, so every branch must have a completion.
        """
        return [self._visible_to(slot) for slot in self.predicting[self.first_targets()].tolist()]

    def _visible_to(self, slot: int) -> Tensor:
        if isinstance(self.mask, BlockSparseMask):
            return (self.mask.visible_until[: slot + 1] >= slot).nonzero()[:, 0]
        return torch.arange(slot + 1) if self.mask is None else self.mask[0, 0, slot].nonzero()[:, 0]

    def attention_mask(self) -> Tensor | BlockMask | None:
        """Return the mask to pass to the model as `attention_mask`."""
        return self.mask.block_mask() if isinstance(self.mask, BlockSparseMask) else self.mask

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Pack":
        """Return the pack on a device. accelerate's DataLoaders call this, as they do for tensors."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Pack":
        """Return the pack in pinned memory. torch's DataLoader calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, move: Callable[[Tensor], Tensor]) -> "Pack":
        return replace(
            self,
            input_ids=move(self.input_ids),
            position_ids=None if self.position_ids is None else move(self.position_ids),
            mask=_map_mask(self.mask, move),
            predicting=move(self.predicting),
            targets=move(self.targets),
        )


def _map_mask(
    mask: Tensor | BlockSparseMask | None, move: Callable[[Tensor], Tensor]
) -> Tensor | BlockSparseMask | None:
    if mask is None:
        return None
    return mask.map(move) if isinstance(mask, BlockSparseMask) else move(mask)


@dataclass(frozen=True, slots=True)
class Packer:
    """Makes packs from trees. Its attributes change speed and memory, and results only by rounding.

    Attributes:
        tokens_per_pack: maximum length of a pack in tokens.
        buckets: the lengths that packs are padded to, longest last. Padded packs get a block-sparse mask. If there are
            no buckets, packs are not padded and get a dense mask.
    """

    tokens_per_pack: int
    buckets: tuple[int, ...] = ()

    @classmethod
    def dense(cls, tokens_per_pack: int) -> "Packer":
        """Return a packer for sdpa."""
        return cls(tokens_per_pack)

    @classmethod
    def block_sparse(cls, tokens_per_pack: int) -> "Packer":
        """Return a packer for FlexAttention. `tokens_per_pack` is rounded down to whole blocks."""
        return cls(tokens_per_pack // BLOCK * BLOCK, length_buckets(tokens_per_pack))

    def make_packs(self, trees: Sequence[Tree]) -> list[Pack]:
        """Distribute trees over packs.

        Raises:
            ValueError: a prefix and one branch are together longer than a pack.
        """
        together = distribute(trees, self.buckets) if self.buckets else first_fit(trees, self.tokens_per_pack)
        return [self.make_pack(pack) for pack in together]

    def make_pack(self, trees: Sequence[Tree]) -> Pack:
        """Return one pack with all `trees`, which must fit into it."""
        layout = lay_out(trees)
        learned = np.flatnonzero(layout.labels != IGNORED)
        branches = [branch for tree in trees for branch in tree.branches]
        length = len(layout.input_ids)
        padding = bucket(length, self.buckets) - length if self.buckets else 0
        # padding attends to itself, so that no softmax is over an empty row
        visible_until = np.concatenate([layout.visible_until, np.arange(length, length + padding)])
        return Pack(
            input_ids=_row(layout.input_ids, padding),
            position_ids=_row(layout.position_ids, padding),
            mask=BlockSparseMask.of(visible_until) if self.buckets else dense_mask(torch.from_numpy(visible_until)),
            predicting=torch.from_numpy(learned - 1),
            targets=torch.from_numpy(layout.labels[learned]),
            keys=tuple(branch.key for branch in branches),
            completion_lengths=tuple(len(branch.completion_ids) for branch in branches),
        )


def _row(values: np.ndarray, padding: int) -> Tensor:
    return torch.from_numpy(np.pad(values, (0, padding)))[None]


def plain_sequence(tree: Tree) -> Pack:
    """Return a tree with one branch as an ordinary sequence, whose mask and positions the model computes itself."""
    return replace(Packer.dense(len(tree)).make_pack([tree]), position_ids=None, mask=None)
