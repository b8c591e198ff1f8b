"""A shared prefix and its branches: what prefix sharing packs.

A prefix is a passage, say, and a branch one question about it with its answer. Packing does not care: tokens are read
or learned, and a branch has a key by which its owner knows it again.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Branch:
    """What follows a prefix: prompt tokens that are read, then completion tokens that are learned.

    Attributes:
        prompt_ids: at least one token, since the token before the completion must be the branch's own: it predicts
            the first completion token.
        completion_ids: empty where there is nothing to learn.
        key: names the branch in scores; packing only hands it on.

    Raises:
        ValueError: the prompt is empty.
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    key: Hashable = None

    def __post_init__(self) -> None:
        if not len(self.prompt_ids):
            raise ValueError("a branch needs at least one prompt token before its completion")

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class Tree:
    """A prefix and the branches that share it.

    Branches are kept in the order of their prompts, so that prompts that begin alike ("Question: What is ...") lie side
    by side and what they begin with is computed once, too. The last token of a prompt is never shared: the completion
    stands right behind it.

    Attributes:
        prefix_ids: shared tokens; may be empty.
        branches: sorted by their prompts.
        shared: for each branch, how many of its first prompt tokens are those of the branch before it.
        length: slots that the tree takes in a pack.
    """

    prefix_ids: Sequence[int]
    branches: tuple[Branch, ...]
    shared: tuple[int, ...] = field(init=False, compare=False)
    length: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.branches, key=lambda branch: tuple(branch.prompt_ids)))
        prompts: list[Sequence[int]] = [(), *(branch.prompt_ids for branch in ordered)]
        shared = tuple(_common_start(*pair) for pair in pairwise(prompts))
        object.__setattr__(self, "branches", ordered)
        object.__setattr__(self, "shared", shared)
        object.__setattr__(self, "length", len(self.prefix_ids) + sum(map(len, ordered)) - sum(shared))

    def __len__(self) -> int:
        return self.length


def _common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many first tokens two prompts have in common, not counting the last token of each."""
    pairs = zip(one[:-1], other[:-1], strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), max(0, min(len(one), len(other)) - 1))


def split_tree(tree: Tree, tokens_per_pack: int) -> list[Tree]:
    """Split a tree between branches into trees that fit a pack; each repeats the prefix.

    Raises:
        ValueError: the prefix with one branch is longer than a pack.
    """
    if len(tree) <= tokens_per_pack:
        return [tree]
    groups: list[list[Branch]] = [[]]
    used = prefix = len(tree.prefix_ids)
    for branch, shared in zip(tree.branches, tree.shared, strict=True):
        if prefix + len(branch) > tokens_per_pack:
            raise ValueError(f"a sequence of {prefix + len(branch)} tokens does not fit a pack of {tokens_per_pack}")
        if used + len(branch) - shared > tokens_per_pack:
            groups.append([])
            used, shared = prefix, 0
        groups[-1].append(branch)
        used += len(branch) - shared
    return [Tree(tree.prefix_ids, tuple(group)) for group in groups]
