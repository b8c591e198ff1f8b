"""The one rule of who sees whom in a pack, in its dense and its block-sparse form."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Slots of a block: what FlexAttention's kernels skip or take whole."""


def may_attend(query: Tensor, key: Tensor, reach: Tensor) -> Tensor:
    """Tell whether the token in slot `query` sees the one in slot `key`.

    It does from that slot on up to the last one of the key's subtree: those that go on from it, and no others.
    Element-wise on index tensors that broadcast: one rule for a dense mask and for a block-sparse one.

    Args:
        query: slot numbers, any shape.
        key: slot numbers, a shape that broadcasts with `query`.
        reach: the last slot that sees each slot, integers [L] (`Layout.reach`).

    Returns:
        bool, the broadcast shape.
    """
    return (key <= query) & (query <= reach[key])


def dense_mask(reach: Tensor) -> Tensor:
    """Return the whole mask of a pack, bool [1, 1, L, L] (True: attend), for models under `sdpa`.

    Under `eager` a bool mask would be added to the scores as 0 and 1, with no error: use `sdpa`.
    """
    slots = torch.arange(len(reach), device=reach.device)
    return may_attend(slots[:, None], slots[None, :], reach)[None, None]


def block_table(reach: NDArray[np.int64]) -> dict[str, Tensor]:
    """Return which blocks of keys each block of queries sees, in part or whole, as FlexAttention wants to be told.

    Made from the smallest and largest reach of each block of keys, not from the mask itself, so that it costs nothing
    beside a step. A later block of queries sees some of a block of keys if its first slot is within the largest reach,
    all of it if its last slot is within the smallest.

    Args:
        reach: int64 [L], L a multiple of `BLOCK`.

    Returns:
        int32 [1, 1, L / BLOCK] counts and [1, 1, L / BLOCK, L / BLOCK] indices, counted ones first: `partial_counts`,
        `partial_indices`, `whole_counts`, `whole_indices`.
    """
    blocks = reach.reshape(-1, BLOCK)
    first = np.arange(len(blocks))[:, None] * BLOCK
    later = np.tri(len(blocks), k=-1, dtype=bool)
    some = later & (first <= blocks.max(axis=1)) | np.eye(len(blocks), dtype=bool)
    whole = later & (first + BLOCK - 1 <= blocks.min(axis=1))
    return {**_ordered("partial", some & ~whole), **_ordered("whole", whole)}


def _ordered(name: str, seen: NDArray[np.bool_]) -> dict[str, Tensor]:
    counts = seen.sum(axis=1, dtype=np.int32)
    indices = np.argsort(~seen, axis=1, kind="stable").astype(np.int32)
    return {
        f"{name}_counts": torch.from_numpy(counts)[None, None],
        f"{name}_indices": torch.from_numpy(indices)[None, None],
    }


def block_mask(reach: Tensor, table: dict[str, Tensor]) -> BlockMask:
    """Return the mask of a pack for FlexAttention, on the device of its arguments and without waiting for it.

    Args:
        reach: integers [L].
        table: `block_table` of it.
    """

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return may_attend(query, key, reach)

    return BlockMask.from_kv_blocks(
        table["partial_counts"],
        table["partial_indices"],
        table["whole_counts"],
        table["whole_indices"],
        BLOCK_SIZE=BLOCK,
        mask_mod=rule,
        seq_lengths=(len(reach), len(reach)),
    )
