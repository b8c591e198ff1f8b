"""The layout of a pack: which token stands in which slot, at which position, who sees it, and what is predicted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from falcon_job.packing.tree import Tree

IGNORED = -100
"""Label of a token that is not learned, as torch.nn.functional.cross_entropy ignores it."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """One row of L slots; every array is int64 [L].

    Attributes:
        input_ids: the tokens.
        position_ids: the position of a token in its own sequence: a branch goes on where what it shares ended.
        visible_until: the last slot that sees this one. Slot q sees slot k if `k <= q <= visible_until[k]`.
        labels: the token itself where it is learned, else `IGNORED`. Slot i - 1 predicts the label of slot i.
    """

    input_ids: IntArray
    position_ids: IntArray
    visible_until: IntArray
    labels: IntArray


def lay_out(trees: Sequence[Tree]) -> Layout:
    """Lay trees side by side in one row: a prefix, then its branches, depth first.

    Raises:
        ValueError: there is no tree.
    """
    if not trees:
        raise ValueError("a pack needs at least one tree")
    layout = Layout(*(np.empty(sum(map(len, trees)), dtype=np.int64) for _ in range(4)))
    path = np.empty(0, dtype=np.int64)  # slots of the sequence laid out last, one a position
    end = 0
    for run in (run for tree in trees for run in _runs(tree)):
        slots = np.arange(end, end + len(run.read_ids) + len(run.learned_ids))
        layout.input_ids[slots] = [*run.read_ids, *run.learned_ids]
        layout.position_ids[slots] = np.arange(run.depth, run.depth + len(slots))
        layout.labels[slots] = [*([IGNORED] * len(run.read_ids)), *run.learned_ids]
        layout.visible_until[path[run.depth :]] = end - 1
        path = np.concatenate([path[: run.depth], slots])
        end += len(slots)
    layout.visible_until[path] = end - 1
    return layout


@dataclass(frozen=True, slots=True)
class _Run:
    """Slots side by side that go on from the first `depth` tokens of the sequence laid out before them."""

    depth: int
    read_ids: Sequence[int]
    learned_ids: Sequence[int]


def _runs(tree: Tree) -> Iterator[_Run]:
    yield _Run(0, tree.prefix_ids, ())
    for branch, shared in zip(tree.branches, tree.shared, strict=True):
        yield _Run(len(tree.prefix_ids) + shared, branch.prompt_ids[shared:], branch.completion_ids)
