"""Which questions make an optimizer step: fixed by the seed before anything is packed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from torch.utils.data import Dataset

from falcon_job.packing.layout import Branch, Tree
from falcon_job.packing.pack import Pack, PackForm, supervised_tokens
from falcon_job.tokens.dataset import EncodedPassage, Split


class Batch(TypedDict):
    """One step: its packs, and counts."""

    packs: list[Pack]
    questions: int
    logical_tokens: int
    supervised_tokens: int


@dataclass(frozen=True, slots=True)
class Portion:
    """Questions [start, stop) of the passage at `index` of a split."""

    index: int
    start: int
    stop: int


class StepPlan:
    """The questions of passages, taken in an order, cut into steps; a passage cut at the edge of a step stands in both.

    It keeps twelve bytes a passage: where each one's questions end in the order.
    """

    def __init__(self, question_counts: np.ndarray, questions_per_step: int, order: Sequence[int]) -> None:
        """Take passages in `order`, indices of `question_counts`; the last step may be smaller."""
        self._order = np.asarray(order, dtype=np.int32)
        self._stops = np.cumsum(question_counts[self._order], dtype=np.int64)
        self._counts = question_counts
        self._questions = int(self._stops[-1])
        self._size = questions_per_step

    def __len__(self) -> int:
        """Return the number of steps."""
        return -(-self._questions // self._size)

    def __getitem__(self, step: int) -> list[Portion]:
        """Return what makes a step, from 0."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        start = step * self._size
        stop = min(start + self._size, self._questions)
        first = int(np.searchsorted(self._stops, start, side="right"))
        last = int(np.searchsorted(self._stops, stop, side="left"))
        return [self._portion(place, start, stop) for place in range(first, last + 1)]

    def _portion(self, place: int, start: int, stop: int) -> Portion:
        """Return what of the passage at a place of the order lies in questions [start, stop) of the whole."""
        index, end = int(self._order[place]), int(self._stops[place])
        begin = end - int(self._counts[index])
        return Portion(index, max(start, begin) - begin, min(stop, end) - begin)


def to_tree(passage: EncodedPassage, start: int = 0, stop: int | None = None) -> Tree:
    """Return a passage with its questions [start, stop) as a tree."""
    branches = (Branch(question.prompt_ids, question.answer_ids) for question in passage.questions[start:stop])
    return Tree(passage.prefix_ids, tuple(branches))


class StepDataset(Dataset[Batch]):
    """The steps of a split, one item each; `set_epoch` draws the order of passages anew."""

    def __init__(self, split: Split, questions_per_step: int, form: PackForm, seed: int | None) -> None:
        """Plan the first epoch.

        Args:
            split: the questions.
            questions_per_step: questions of one step.
            form: what its packs look like.
            seed: of the order of passages; None keeps the order of the file.
        """
        self._split = split
        self._questions_per_step = questions_per_step
        self._form = form
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Plan the steps of an epoch, from 0."""
        order = list(range(len(self._split)))
        if self._seed is not None:
            random.Random(f"{self._seed} {epoch}").shuffle(order)
        self._steps = StepPlan(self._split.question_counts, self._questions_per_step, order)

    def __len__(self) -> int:
        return len(self._steps)

    def trees(self, step: int) -> list[Tree]:
        """Return the trees of a step."""
        return [to_tree(self._split[part.index], part.start, part.stop) for part in self._steps[step]]

    def __getitem__(self, step: int) -> Batch:
        trees = self.trees(step)
        packs = self._form.make_packs(trees)
        return {
            "packs": packs,
            "questions": sum(len(tree.branches) for tree in trees),
            "logical_tokens": sum(len(tree.prefix_ids) + len(branch) for tree in trees for branch in tree.branches),
            "supervised_tokens": sum(map(supervised_tokens, packs)),
        }
