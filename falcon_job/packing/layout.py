"""From passages and questions to the tokens of a pack: which token stands where, what it sees, what it must predict."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""Label of a position whose token is not learned, as torch.nn.functional.cross_entropy ignores it."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Branch:
    """What follows a prefix: tokens that are read, then tokens that are learned.

    Attributes:
        prompt_ids: the question; at least one token, since the first token of a branch has no own predecessor.
        answer_ids: the answer and its end-of-text; empty when there is nothing to learn.
    """

    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(frozen=True, slots=True)
class Tree:
    """A shared prefix (a passage; it may be empty) and its branches (the questions about it)."""

    prefix_ids: Sequence[int]
    branches: tuple[Branch, ...]

    def __len__(self) -> int:
        """Return the slots it takes in a pack."""
        return len(self.prefix_ids) + sum(len(branch) - shared for branch, shared in self.ordered())

    def ordered(self) -> list[tuple[Branch, int]]:
        """Return the branches in the order of their prompts, each with how many first tokens it shares with the last.

        Prompts that begin alike ("Question: What is") lie side by side, and what they begin with is computed once. The
        last token of a prompt is never shared: it predicts the answer that stands right behind it.

        Raises:
            ValueError: a branch has no prompt token, so that its first answer token would be predicted from elsewhere.
        """
        if not all(len(branch.prompt_ids) for branch in self.branches):
            raise ValueError("a branch needs at least one prompt token before its answer")
        branches = sorted(self.branches, key=lambda branch: tuple(branch.prompt_ids))
        before = ((), *(branch.prompt_ids for branch in branches))
        return [(branch, _shared(last, branch.prompt_ids)) for last, branch in zip(before, branches, strict=False)]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many first tokens two prompts have in common, the last token of each aside."""
    pairs = zip(one[:-1], other[:-1], strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), max(0, min(len(one), len(other)) - 1))


@dataclass(frozen=True, slots=True)
class Layout:
    """One pack of L slots; all arrays are int64 of shape [L].

    Attributes:
        input_ids: tokens.
        position_ids: position in its own sequence: a branch goes on where what it shares ended.
        reach: the last slot that sees this one. A slot q sees a slot k if k <= q <= reach[k].
        labels: the token itself where it is learned, else `IGNORED`; slot i is predicted by slot i - 1.
    """

    input_ids: IntArray
    position_ids: IntArray
    reach: IntArray
    labels: IntArray


def lay_out(trees: Sequence[Tree]) -> Layout:
    """Lay trees side by side in one pack: a prefix, then its branches, depth first.

    Raises:
        ValueError: there is no tree, or a branch has no prompt token.
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
        layout.reach[path[run.depth :]] = end - 1
        path = np.concatenate([path[: run.depth], slots])
        end += len(slots)
    layout.reach[path] = end - 1
    return layout


@dataclass(frozen=True, slots=True)
class _Run:
    """Slots side by side that go on from the first `depth` tokens of the sequence laid out before them."""

    depth: int
    read_ids: Sequence[int]
    learned_ids: Sequence[int]


def _runs(tree: Tree) -> Iterator[_Run]:
    yield _Run(0, tree.prefix_ids, ())
    for branch, shared in tree.ordered():
        yield _Run(len(tree.prefix_ids) + shared, branch.prompt_ids[shared:], branch.answer_ids)


def pack_trees(trees: Iterable[Tree], capacity: int) -> list[list[Tree]]:
    """Distribute trees over packs of at most `capacity` slots, first fit by decreasing length.

    A tree longer than a pack has its branches spread over several, each with the prefix again. The result depends on
    the trees and their order alone.

    Raises:
        ValueError: a prefix with one branch is longer than `capacity`.
    """
    pieces = sorted((piece for tree in trees for piece in split_tree(tree, capacity)), key=len, reverse=True)
    packs: list[list[Tree]] = []
    room: list[int] = []
    for piece in pieces:
        size = len(piece)
        fitting = next((i for i, free in enumerate(room) if free >= size), None)
        if fitting is None:
            packs.append([piece])
            room.append(capacity - size)
        else:
            packs[fitting].append(piece)
            room[fitting] -= size
    return packs


def split_tree(tree: Tree, capacity: int) -> list[Tree]:
    """Cut a tree into trees of at most `capacity` slots, between branches.

    Raises:
        ValueError: the prefix with one branch is longer than `capacity`.
    """
    if len(tree) <= capacity:
        return [tree]
    groups: list[list[Branch]] = [[]]
    used = depth = len(tree.prefix_ids)
    for branch, shared in tree.ordered():
        if depth + len(branch) > capacity:
            raise ValueError(f"a sequence of {depth + len(branch)} tokens does not fit a pack of {capacity}")
        if used + len(branch) - shared > capacity:
            groups.append([])
            used, shared = depth, 0
        groups[-1].append(branch)
        used += len(branch) - shared
    return [Tree(tree.prefix_ids, tuple(group)) for group in groups]
