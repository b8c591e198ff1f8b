"""The document mask of a pack: one rule, applied as a dense mask for sdpa and a block-sparse one for FlexAttention."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Block size in slots. FlexAttention's kernels skip a block, compute it unmasked, or mask it element by element."""


def may_attend(query: Tensor, key: Tensor, visible_until: Tensor) -> Tensor:
    """Return whether the token in slot `query` attends to the token in slot `key`.

    It does if `query` is not before `key` and not after `visible_until` of `key`. In a row of a prefix P and branches A
    and B, the slots of P are visible until the end of B, but those of A only until the end of A:

        slot            0  1  2  3  4  5
        token           P  P  A  A  B  B
        visible_until   5  5  3  3  5  5

    Slot 4 (B) attends to slots 0, 1 and 4, but not to slots 2 and 3 (A), which are visible only until slot 3.

    The rule is element-wise on slot numbers that broadcast, so it works for the dense and the block-sparse mask. It is
    the rule of FlashMask's column-wise masks (Wang et al. 2024, arXiv 2410.01359).

    Args:
        query: slot numbers, any shape.
        key: slot numbers, a shape that broadcasts with `query`.
        visible_until: the last slot that attends to each slot, integers [L] (see `Layout`).

    Returns:
        bool, the broadcast shape.
    """
    return (key <= query) & (query <= visible_until[key])


def dense_mask(visible_until: Tensor) -> Tensor:
    """Return the mask of a pack as one tensor, bool [1, 1, L, L] (True: attend), for models with `sdpa` attention.

    Do not use it with `eager` attention, which silently adds a bool mask to the scores as 0 and 1.
    """
    slots = torch.arange(len(visible_until), device=visible_until.device)
    return may_attend(slots[:, None], slots[None, :], visible_until)[None, None]


@dataclass(frozen=True, slots=True)
class BlockSparseMask:
    """The mask of a pack in blocks of `BLOCK` slots, as tensors that a DataLoader can prepare and move to a device.

    Attributes:
        visible_until: int32 [L], L a multiple of `BLOCK`.
        partial_counts: number of key blocks that each query block attends to in part, int32 [1, 1, L / BLOCK].
        partial_indices: indices of these key blocks, then those of all others, int32 [1, 1, L / BLOCK, L / BLOCK].
        full_counts: number of key blocks that each query block attends to in full, shaped like `partial_counts`.
        full_indices: indices of these key blocks, then those of all others, shaped like `partial_indices`.
    """

    visible_until: Tensor
    partial_counts: Tensor
    partial_indices: Tensor
    full_counts: Tensor
    full_indices: Tensor

    @classmethod
    def of(cls, visible_until: NDArray[np.int64]) -> "BlockSparseMask":
        """Return the mask for `visible_until`, int64 [L], L a multiple of `BLOCK`.

        It is computed from the smallest and largest entry of each key block, never from L x L slots, so its cost is
        negligible compared with a step. A later query block attends to some of a key block if the query block's first
        slot is at most the key block's largest `visible_until`, and to all of it if its last slot is at most the
        smallest.
        """
        blocks = visible_until.reshape(-1, BLOCK)
        first = np.arange(len(blocks))[:, None] * BLOCK
        later = np.tri(len(blocks), k=-1, dtype=bool)
        some = later & (first <= blocks.max(axis=1)) | np.eye(len(blocks), dtype=bool)
        full = later & (first + BLOCK - 1 <= blocks.min(axis=1))
        return cls(torch.from_numpy(visible_until.astype(np.int32)), *_block_table(some & ~full), *_block_table(full))

    def block_mask(self) -> BlockMask:
        """Return the mask as FlexAttention's `BlockMask`, on the device of the tensors and without synchronizing."""

        def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return may_attend(query, key, self.visible_until)

        length = len(self.visible_until)
        return BlockMask.from_kv_blocks(
            self.partial_counts,
            self.partial_indices,
            self.full_counts,
            self.full_indices,
            BLOCK_SIZE=BLOCK,
            mask_mod=rule,
            seq_lengths=(length, length),
        )

    def map(self, move: Callable[[Tensor], Tensor]) -> "BlockSparseMask":
        """Return the mask with `move` applied to every tensor."""
        return replace(self, **{each.name: move(getattr(self, each.name)) for each in fields(self)})


def _block_table(seen: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Return the number of True key blocks per query block and the indices of key blocks, True ones first, both int32.

    Args:
        seen: bool [query blocks, key blocks].
    """
    counts = seen.sum(axis=1, dtype=np.int32)
    indices = np.argsort(~seen, axis=1, kind="stable").astype(np.int32)
    return torch.from_numpy(counts)[None, None], torch.from_numpy(indices)[None, None]
