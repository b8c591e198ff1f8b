"""The layout of a pack: the token, position, visibility and label of each slot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from falcon_job.packing.tree import Tree

IGNORED = -100
"""Label of a token without a loss: the default `ignore_index` of torch.nn.functional.cross_entropy."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """One row of L slots; every array is int64 [L].

    Attributes:
        input_ids: the token of each slot.
        position_ids: the position of each token in its own sequence. A branch continues after its shared tokens.
        visible_until: the last slot that attends to this one. Slot q attends to slot k if `k <= q <= visible_until[k]`.
        labels: the token itself if it has a loss, else `IGNORED`. Slot i - 1 predicts the label of slot i.
    """

    input_ids: IntArray
    position_ids: IntArray
    visible_until: IntArray
    labels: IntArray


def lay_out(trees: Sequence[Tree]) -> Layout:
    """Concatenate trees into one row, in depth-first order: a prefix, then its branches.

    Raises:
        ValueError: `trees` is empty.
    """
    if not trees:
        raise ValueError("a pack needs at least one tree")
    layout = Layout(*(np.empty(sum(map(len, trees)), dtype=np.int64) for _ in range(4)))
    path = np.empty(0, dtype=np.int64)  # slots of the sequence laid out last, by position
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
    """Adjacent slots that continue the first `depth` tokens of the sequence laid out before them."""

    depth: int
    read_ids: Sequence[int]
    learned_ids: Sequence[int]


def _runs(tree: Tree) -> Iterator[_Run]:
    yield _Run(0, tree.prefix_ids, ())
    for branch, shared in zip(tree.branches, tree.shared, strict=True):
        yield _Run(len(tree.prefix_ids) + shared, branch.prompt_ids[shared:], branch.completion_ids)
