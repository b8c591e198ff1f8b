"""The document mask of a pack: one rule of who sees whom, dense for sdpa and block-sparse for FlexAttention."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Slots of a block, which FlexAttention's kernels skip, take whole or mask slot by slot."""


def may_attend(query: Tensor, key: Tensor, visible_until: Tensor) -> Tensor:
    """Tell whether the token in slot `query` sees the token in slot `key`.

    It does if it stands at or behind that slot and still belongs to what goes on from there. In a row of a prefix P and
    branches A and B, the slots of P are visible until the end of B, those of A only until the end of A:

        slot            0  1  2  3  4  5
        token           P  P  A  A  B  B
        visible_until   5  5  3  3  5  5

    Slot 4 (B) sees 0, 1 and 4, but not 2 and 3 (A), which nothing sees beyond slot 3.

    The rule is element-wise on slot numbers that broadcast, so that it serves both forms of the mask. It is the rule of
    FlashMask's column-wise masks (Wang et al. 2024, arXiv 2410.01359, section 4.1).

    Args:
        query: slot numbers, any shape.
        key: slot numbers, a shape that broadcasts with `query`.
        visible_until: the last slot that sees each slot, integers [L] (see `Layout`).

    Returns:
        bool, the broadcast shape.
    """
    return (key <= query) & (query <= visible_until[key])


def dense_mask(visible_until: Tensor) -> Tensor:
    """Return the whole mask of a pack, bool [1, 1, L, L] (True: attend), for models under `sdpa`.

    Do not use it under `eager` attention, which adds a bool mask to the scores as 0 and 1, without an error.
    """
    slots = torch.arange(len(visible_until), device=visible_until.device)
    return may_attend(slots[:, None], slots[None, :], visible_until)[None, None]


@dataclass(frozen=True, slots=True)
class BlockSparseMask:
    """The mask of a pack in blocks of `BLOCK` slots, as tensors that can be prepared beside the step and moved.

    Attributes:
        visible_until: int32 [L], L a multiple of `BLOCK`.
        partial_counts: how many blocks of keys each block of queries sees in part, int32 [1, 1, L / BLOCK].
        partial_indices: which, the counted ones first, int32 [1, 1, L / BLOCK, L / BLOCK].
        full_counts: how many it sees in full.
        full_indices: which.
    """

    visible_until: Tensor
    partial_counts: Tensor
    partial_indices: Tensor
    full_counts: Tensor
    full_indices: Tensor

    @classmethod
    def of(cls, visible_until: NDArray[np.int64]) -> "BlockSparseMask":
        """Return the mask of a row, from int64 [L], L a multiple of `BLOCK`.

        Made from the smallest and largest entry of each block of keys, never from L x L slots, so that it costs nothing
        beside a step. A later block of queries sees some of a block of keys if its first slot is within the block's
        largest `visible_until`, and all of it if its last slot is within the smallest.
        """
        blocks = visible_until.reshape(-1, BLOCK)
        first = np.arange(len(blocks))[:, None] * BLOCK
        later = np.tri(len(blocks), k=-1, dtype=bool)
        some = later & (first <= blocks.max(axis=1)) | np.eye(len(blocks), dtype=bool)
        full = later & (first + BLOCK - 1 <= blocks.min(axis=1))
        return cls(torch.from_numpy(visible_until.astype(np.int32)), *_table(some & ~full), *_table(full))

    def block_mask(self) -> BlockMask:
        """Return what FlexAttention takes, on the device of the tensors and without waiting for it."""

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
        """Return the mask with every tensor replaced by `move` of it."""
        return replace(self, **{each.name: move(getattr(self, each.name)) for each in fields(self)})


def _table(seen: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Return of bool [blocks of queries, blocks of keys] the counts and the indices, as int32."""
    counts = seen.sum(axis=1, dtype=np.int32)
    indices = np.argsort(~seen, axis=1, kind="stable").astype(np.int32)
    return torch.from_numpy(counts)[None, None], torch.from_numpy(indices)[None, None]
