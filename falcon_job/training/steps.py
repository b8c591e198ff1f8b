"""Which branches make an optimizer step: fixed by the seed before anything is packed.

So the length of packs, and how many there are, change neither what a step learns from nor its loss, beyond rounding.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from torch.utils.data import Dataset

from falcon_job.packing import Pack, Packer, Tree
from falcon_job.tokens.dataset import Split


class Step(TypedDict):
    """One optimizer step, which is one item of a DataLoader: its packs, and counts."""

    packs: list[Pack]
    branches: int
    logical_tokens: int
    """As if each branch stood with its own copy of the prefix."""
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class TreePart:
    """Branches [start, stop) of the tree at `index` of a split."""

    index: int
    start: int
    stop: int


class StepPlan:
    """The branches of trees, taken in an order and cut into steps; a tree cut at an edge stands in both steps.

    With trees of 3, 2 and 4 branches in the order 2, 0, 1 and steps of 5, the first step holds the four branches of
    tree 2 and the first of tree 0; the second holds the other two of tree 0 and both of tree 1. The plan keeps twelve
    bytes for each tree: its place in the order, and where its branches end.
    """

    def __init__(self, branch_counts: np.ndarray, branches_per_step: int, order: Sequence[int]) -> None:
        """Take trees in `order`, indices of `branch_counts`; the last step may be smaller."""
        self._order = np.asarray(order, dtype=np.int32)
        self._stops = np.cumsum(branch_counts[self._order], dtype=np.int64)
        self._counts = branch_counts
        self._branches = int(self._stops[-1])
        self._size = branches_per_step

    def __len__(self) -> int:
        """Return the number of steps."""
        return -(-self._branches // self._size)

    def __getitem__(self, step: int) -> list[TreePart]:
        """Return what makes a step, counted from 0."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        start = step * self._size
        stop = min(start + self._size, self._branches)
        first = int(np.searchsorted(self._stops, start, side="right"))
        last = int(np.searchsorted(self._stops, stop, side="left"))
        return [self._part(place, start, stop) for place in range(first, last + 1)]

    def _part(self, place: int, start: int, stop: int) -> TreePart:
        """Return which branches of the tree at a place of the order lie within branches [start, stop) of the epoch."""
        index, end = int(self._order[place]), int(self._stops[place])
        begin = end - int(self._counts[index])
        return TreePart(index, max(start, begin) - begin, min(stop, end) - begin)


class StepDataset(Dataset[Step]):
    """The steps of a split, one item each; `set_epoch` draws the order of trees anew."""

    def __init__(self, split: Split, branches_per_step: int, packer: Packer, seed: int | None) -> None:
        """Plan the first epoch.

        Args:
            split: the trees.
            branches_per_step: branches of one step.
            packer: makes its packs.
            seed: of the order of trees; None keeps the order of the file.
        """
        self._split = split
        self._branches_per_step = branches_per_step
        self._packer = packer
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Plan the steps of an epoch, counted from 0."""
        order = list(range(len(self._split)))
        if self._seed is not None:
            random.Random(f"{self._seed} {epoch}").shuffle(order)
        self._plan = StepPlan(self._split.branch_counts, self._branches_per_step, order)

    def __len__(self) -> int:
        return len(self._plan)

    def trees(self, step: int) -> list[Tree]:
        """Return the trees of a step."""
        return [self._split[part.index].tree(part.start, part.stop) for part in self._plan[step]]

    def __getitem__(self, step: int) -> Step:
        trees = self.trees(step)
        branches = [branch for tree in trees for branch in tree.branches]
        return {
            "packs": self._packer.make_packs(trees),
            "branches": len(branches),
            "logical_tokens": sum(len(tree.prefix_ids) * len(tree.branches) for tree in trees)
            + sum(map(len, branches)),
            "completion_tokens": sum(len(branch.completion_ids) for branch in branches),
        }
