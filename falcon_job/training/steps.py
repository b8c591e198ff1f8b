"""Which questions make an optimizer step: fixed by the seed before anything is packed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from torch.utils.data import Dataset

from falcon_job.packing.layout import Branch, Tree
from falcon_job.qa.store import EncodedPassage, Split
from falcon_job.training.packs import Pack, PackForm, supervised_tokens


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


def plan_steps(question_counts: Sequence[int], questions_per_step: int, order: Sequence[int]) -> list[list[Portion]]:
    """Cut the questions of passages, taken in `order`, into steps of `questions_per_step`; the last may be smaller.

    A passage cut at the edge of a step stands in both.
    """
    steps: list[list[Portion]] = [[]]
    free = questions_per_step
    for index in order:
        start, count = 0, question_counts[index]
        while start < count:
            if free == 0:
                steps.append([])
                free = questions_per_step
            stop = min(count, start + free)
            steps[-1].append(Portion(index, start, stop))
            free -= stop - start
            start = stop
    return steps if steps[-1] else steps[:-1]


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
        self._steps = plan_steps(self._split.question_counts, self._questions_per_step, order)

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
