"""One pack as a training step takes it: tensors made beside the step, so that the step itself never waits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from falcon_job.packing.layout import IGNORED, Layout, Tree, lay_out, pack_trees
from falcon_job.packing.mask import BLOCK, block_mask, block_table, dense_mask

Pack = dict[str, Tensor]
"""input_ids and position_ids, int64 [1, L]; reach, int32 [L], with its block table, or attention_mask, bool
[1, 1, L, L]; predicting and targets, int64 [N]: the slots that predict the answer tokens, and these. Without mask and
positions it is one plain causal sequence."""

SIXTEENTHS = (2, 3, 5, 6, 7, 9, 10, 12, 16)
"""Lengths, in sixteenths of a full one, that a pack of the block-sparse kernel may have. Few, as layers are compiled
for each; of all choices of eight shorter ones these leave about the least padding on SQuAD, at 64 to 1,024 questions a
step."""


@dataclass(frozen=True)
class PackForm:
    """What packs look like on this machine; it changes speed and memory, and results by rounding alone.

    Attributes:
        capacity: most slots of a pack.
        lengths: what a pack is padded to, for the block-sparse kernel: the shortest that holds it. Without any, a pack
            is as long as it needs to be, under a dense mask.
    """

    capacity: int
    lengths: tuple[int, ...] = ()

    @classmethod
    def dense(cls, capacity: int) -> "PackForm":
        """Return the form for sdpa."""
        return cls(capacity)

    @classmethod
    def sparse(cls, capacity: int) -> "PackForm":
        """Return the form for FlexAttention, whose packs are of whole blocks; the largest is at most `capacity`."""
        blocks = capacity // BLOCK
        lengths = {max(1, blocks * part // 16) * BLOCK for part in SIXTEENTHS if blocks}
        return cls(blocks * BLOCK, tuple(sorted(lengths)))

    def make_packs(self, trees: Sequence[Tree]) -> list[Pack]:
        """Return the packs of some trees."""
        return [self.make_pack(lay_out(pack)) for pack in self.distribute(trees)]

    def distribute(self, trees: Sequence[Tree]) -> list[list[Tree]]:
        """Distribute trees over as few packs as full ones would be, padded least; of such ways, the most even.

        A pack much shorter than full is computed faster than its kernels are launched, and the GPU would wait.
        """
        full = pack_trees(trees, self.capacity)
        if not self.lengths or len(full) == 1:
            return full
        longest = max(len(tree) for pack in full for tree in pack)
        shorter = (pack_trees(trees, length) for length in self.lengths[:-1] if length >= longest)
        as_few = [packs for packs in shorter if len(packs) == len(full)]
        return min([*as_few, full], key=lambda packs: sum(self._padded(sum(map(len, pack))) for pack in packs))

    def _padded(self, size: int) -> int:
        """Return the length of a pack of the block-sparse kernel that holds `size` slots."""
        return next(length for length in self.lengths if length >= size)

    def make_pack(self, layout: Layout) -> Pack:
        """Return the tensors of one pack."""
        learned = np.flatnonzero(layout.labels != IGNORED)
        pack = {
            "predicting": torch.from_numpy(learned - 1),
            "targets": torch.from_numpy(layout.labels[learned]),
        }
        if not self.lengths:
            mask = {"attention_mask": dense_mask(torch.from_numpy(layout.reach))}
            return {**pack, **mask, **_row(layout.input_ids, layout.position_ids)}
        size = len(layout.reach)
        length = self._padded(size)
        # a slot of padding sees itself, so that no row of the softmax is empty
        reach = np.concatenate([layout.reach, np.arange(size, length)])
        padded = (np.pad(column, (0, length - size)) for column in (layout.input_ids, layout.position_ids))
        table = block_table(reach)
        return {**pack, **table, "reach": torch.from_numpy(reach.astype(np.int32)), **_row(*padded)}


def _row(input_ids: np.ndarray, position_ids: np.ndarray) -> Pack:
    return {"input_ids": torch.from_numpy(input_ids)[None], "position_ids": torch.from_numpy(position_ids)[None]}


def plain_sequence(tree: Tree) -> Pack:
    """Return a tree of one branch as an ordinary sequence, which a model masks and numbers by itself."""
    pack = PackForm.dense(len(tree)).make_pack(lay_out([tree]))
    return {name: pack[name] for name in ("input_ids", "predicting", "targets")}


def attention_mask(pack: Pack) -> Tensor | BlockMask | None:
    """Return the mask of a pack in the form that its kernel takes; None for a plain sequence."""
    return block_mask(pack["reach"], pack) if "reach" in pack else pack.get("attention_mask")


def supervised_tokens(pack: Pack) -> int:
    """Return the number of answer tokens of a pack."""
    return len(pack["targets"])


def slots(pack: Pack) -> int:
    """Return the length of a pack."""
    return pack["input_ids"].shape[1]
