"""Which trees share a pack: first fit by decreasing length, and packs of a few lengths (length buckets).

Layers are compiled for each length of a pack, so a pack of any length would be compiled anew. A pack is padded to the
next of a few lengths instead, as bucketing does for batches of sequences.
"""

from collections.abc import Iterable, Sequence

from falcon_job.packing.mask import BLOCK
from falcon_job.packing.tree import Tree, split_tree

SIXTEENTHS = (2, 3, 5, 6, 7, 9, 10, 12, 16)
"""The lengths, in sixteenths of the longest pack. Of all choices of eight shorter ones these leave about the least
padding on SQuAD, at 64 to 1,024 questions a step."""


def length_buckets(tokens_per_pack: int) -> tuple[int, ...]:
    """Return the lengths that a pack may have, in whole blocks, shortest first; none below one block."""
    blocks = tokens_per_pack // BLOCK
    return tuple(sorted({max(1, blocks * part // 16) * BLOCK for part in SIXTEENTHS if blocks}))


def bucket(length: int, buckets: Sequence[int]) -> int:
    """Return the shortest bucket that holds `length` slots."""
    return next(each for each in buckets if each >= length)


def first_fit(trees: Iterable[Tree], tokens_per_pack: int) -> list[list[Tree]]:
    """Distribute trees over packs of at most `tokens_per_pack` slots, longest first, each into the first with room.

    A tree longer than a pack is split between branches. The result depends on the trees and their order alone.

    Raises:
        ValueError: a prefix with one branch is longer than a pack.
    """
    pieces = sorted((piece for tree in trees for piece in split_tree(tree, tokens_per_pack)), key=len, reverse=True)
    packs: list[list[Tree]] = []
    room: list[int] = []
    for piece in pieces:
        place = next((i for i, free in enumerate(room) if free >= len(piece)), None)
        if place is None:
            packs.append([piece])
            room.append(tokens_per_pack - len(piece))
        else:
            packs[place].append(piece)
            room[place] -= len(piece)
    return packs


def distribute(trees: Sequence[Tree], buckets: Sequence[int]) -> list[list[Tree]]:
    """Distribute trees over as few packs as packs of the longest bucket would take, with the least padding.

    Of the ways that do, the most even one is taken: a pack much shorter than the others is computed faster than its
    kernels are launched, and the GPU would wait. Example: 8,979 slots do not fit one pack of 8,192; they become two of
    4,608, not one full and one of 1,024.

    Raises:
        ValueError: a prefix with one branch is longer than the longest bucket.
    """
    longest = first_fit(trees, buckets[-1])
    if len(longest) == 1:
        return longest
    needed = max(len(tree) for pack in longest for tree in pack)
    shorter = (first_fit(trees, length) for length in buckets[:-1] if length >= needed)
    as_few = [packs for packs in shorter if len(packs) == len(longest)]
    return min([*as_few, longest], key=lambda packs: sum(bucket(sum(map(len, pack)), buckets) for pack in packs))
