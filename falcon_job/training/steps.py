"""The branches of each optimizer step. The seed determines them before anything is packed.

So the number and length of packs do not change what a step trains on, and change its loss only by rounding.
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
    """The data of one optimizer step, which is one item of the DataLoader: packs and counts."""

    packs: list[Pack]
    branches: int
    logical_tokens: int
    """The number of tokens if each branch had its own copy of the prefix."""
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class TreePart:
    """Branches [start, stop) of the tree at `index` in a split."""

    index: int
    start: int
    stop: int


class StepPlan:
    """Divides the branches of all trees into steps. A tree at the boundary between two steps is split between them.

    Example: trees 0, 1 and 2 have 3, 2 and 4 branches. They are taken in the order 2, 0, 1, with 5 branches per step.
    The first step gets the four branches of tree 2 and the first one of tree 0. The second step gets the other two of
    tree 0 and both of tree 1.

    The plan takes twelve bytes per tree: the order of the trees and where the branches of each end.
    """

    def __init__(self, branch_counts: np.ndarray, branches_per_step: int, order: Sequence[int]) -> None:
        """Plan the steps.

        Args:
            branch_counts: number of branches of each tree.
            branches_per_step: number of branches of each step; the last step may have fewer.
            order: indices of the trees, in the order in which to take them.
        """
        self._order = np.asarray(order, dtype=np.int32)
        self._stops = np.cumsum(branch_counts[self._order], dtype=np.int64)
        self._counts = branch_counts
        self._branches = int(self._stops[-1])
        self._size = branches_per_step

    def __len__(self) -> int:
        """Return the number of steps."""
        return -(-self._branches // self._size)

    def __getitem__(self, step: int) -> list[TreePart]:
        """Return the parts of trees that make up a step, counted from 0."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        start = step * self._size
        stop = min(start + self._size, self._branches)
        first = int(np.searchsorted(self._stops, start, side="right"))
        last = int(np.searchsorted(self._stops, stop, side="left"))
        return [self._part(place, start, stop) for place in range(first, last + 1)]

    def _part(self, place: int, start: int, stop: int) -> TreePart:
        """Return the part of the tree at `place` in the order that lies within branches [start, stop) of the epoch."""
        index, end = int(self._order[place]), int(self._stops[place])
        begin = end - int(self._counts[index])
        return TreePart(index, max(start, begin) - begin, min(stop, end) - begin)


class StepDataset(Dataset[Step]):
    """The steps of a split, one per item. `set_epoch` shuffles the trees again."""

    def __init__(self, split: Split, branches_per_step: int, packer: Packer, seed: int | None) -> None:
        """Plan the first epoch.

        Args:
            split: the passages, each of which is a tree.
            branches_per_step: number of branches of a step.
            packer: makes the packs of a step.
            seed: for shuffling the trees; None keeps their order in the file.
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
