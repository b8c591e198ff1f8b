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
        return len(self.prefix_ids) + sum(map(len, self.branches))


@dataclass(frozen=True, slots=True)
class Layout:
    """One pack of L slots; all arrays are int64 of shape [L].

    Attributes:
        input_ids: tokens.
        position_ids: position in its own sequence: a branch goes on where its prefix ended.
        tree_ids: number of the tree in the pack, from 0.
        branch_ids: 0 for a prefix, 1, 2, ... for the branches of a tree.
        labels: the token itself where it is learned, else `IGNORED`; slot i is predicted by slot i - 1.
    """

    input_ids: IntArray
    position_ids: IntArray
    tree_ids: IntArray
    branch_ids: IntArray
    labels: IntArray


def lay_out(trees: Sequence[Tree]) -> Layout:
    """Lay trees side by side in one pack.

    Raises:
        ValueError: there is no tree, or a branch has no prompt token, so that its first answer token would be predicted
            by a slot of another branch.
    """
    if not trees:
        raise ValueError("a pack needs at least one tree")
    parts = [part for number, tree in enumerate(trees) for part in _tree_parts(number, tree)]
    return Layout(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _tree_parts(number: int, tree: Tree) -> Iterator[tuple[IntArray, ...]]:
    """Yield (input, position, tree, branch, label) arrays for the prefix and each branch."""
    depth = len(tree.prefix_ids)
    yield _segment(tree.prefix_ids, (), 0, number, 0)
    for k, branch in enumerate(tree.branches, start=1):
        if not branch.prompt_ids:
            raise ValueError("a branch needs at least one prompt token before its answer")
        yield _segment(branch.prompt_ids, branch.answer_ids, depth, number, k)


def _segment(read: Sequence[int], learned: Sequence[int], start: int, tree: int, branch: int) -> tuple[IntArray, ...]:
    tokens = np.array([*read, *learned], dtype=np.int64)
    labels = tokens.copy()
    labels[: len(read)] = IGNORED
    positions = np.arange(start, start + len(tokens), dtype=np.int64)
    return tokens, positions, np.full_like(tokens, tree), np.full_like(tokens, branch), labels


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
    """Cut a tree into trees of at most `capacity` slots, by branches.

    Raises:
        ValueError: the prefix with one branch is longer than `capacity`.
    """
    groups: list[list[Branch]] = [[]]
    used = depth = len(tree.prefix_ids)
    for branch in tree.branches:
        if depth + len(branch) > capacity:
            raise ValueError(f"a sequence of {depth + len(branch)} tokens does not fit a pack of {capacity}")
        if used + len(branch) > capacity:
            groups.append([])
            used = depth
        groups[-1].append(branch)
        used += len(branch)
    return [Tree(tree.prefix_ids, tuple(group)) for group in groups]
