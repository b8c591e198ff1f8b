"""Distribute trees over packs: first-fit decreasing, and packs of only a few lengths (length buckets).

Layers are compiled once for each length of a pack. If packs could have any length, almost every pack would trigger a
recompilation. So each pack is padded to the next of a few lengths, as in length bucketing of batches.
"""

from collections.abc import Iterable, Sequence

from falcon_job.packing.mask import BLOCK
from falcon_job.packing.tree import Tree, split_tree

SIXTEENTHS = (2, 3, 5, 6, 7, 9, 10, 12, 16)
"""The bucket lengths, in sixteenths of the longest pack. Among all choices of eight shorter lengths, these give close
to the least padding on SQuAD, with 64 to 1,024 questions per step."""


def length_buckets(tokens_per_pack: int) -> tuple[int, ...]:
    """Return the allowed lengths of a pack, shortest first: multiples of `BLOCK`.

    There are none if `tokens_per_pack` is less than one block.
    """
    blocks = tokens_per_pack // BLOCK
    return tuple(sorted({max(1, blocks * part // 16) * BLOCK for part in SIXTEENTHS if blocks}))


def bucket(length: int, buckets: Sequence[int]) -> int:
    """Return the shortest bucket that holds `length` tokens."""
    return next(each for each in buckets if each >= length)


def first_fit(trees: Iterable[Tree], tokens_per_pack: int) -> list[list[Tree]]:
    """Distribute trees over packs of at most `tokens_per_pack` tokens by first-fit decreasing.

    Trees are taken longest first, and each goes into the first pack that has room for it. A tree that is longer than a
    pack is split between branches. The result depends only on the trees and their order.

    Raises:
        ValueError: a prefix and one branch are together longer than a pack.
    """
    pieces = sorted((piece for tree in trees for piece in split_tree(tree, tokens_per_pack)), key=len, reverse=True)
    packs: list[list[Tree]] = []
    free: list[int] = []
    for piece in pieces:
        place = next((i for i, slots in enumerate(free) if slots >= len(piece)), None)
        if place is None:
            packs.append([piece])
            free.append(tokens_per_pack - len(piece))
        else:
            packs[place].append(piece)
            free[place] -= len(piece)
    return packs


def distribute(trees: Sequence[Tree], buckets: Sequence[int]) -> list[list[Tree]]:
    """Distribute trees over the fewest packs, with the least padding.

    The fewest packs are as many as `first_fit` makes with the longest bucket. Among distributions with equal padding,
    the most even one wins: a pack that is much shorter than the others takes less time to compute than its kernels take
    to launch, so the GPU would be idle. Example: 8,979 tokens do not fit into one pack of 8,192. They become two packs
    of 4,608, not one full pack and one of 1,024.

    Raises:
        ValueError: a prefix and one branch are together longer than the longest bucket.
    """
    longest = first_fit(trees, buckets[-1])
    if len(longest) == 1:
        return longest
    needed = max(len(tree) for pack in longest for tree in pack)
    shorter = (first_fit(trees, length) for length in buckets[:-1] if length >= needed)
    as_few = [packs for packs in shorter if len(packs) == len(longest)]
    return min([*as_few, longest], key=lambda packs: sum(bucket(sum(map(len, pack)), buckets) for pack in packs))
