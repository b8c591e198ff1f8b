"""A tree: a shared prefix and the branches that continue it.

For example, the prefix is a passage, and each branch is a question about it with its answer. Packing only knows tokens
with and without a loss. The caller can give each branch a key to identify it by.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation of a prefix: prompt tokens without a loss, then completion tokens with a loss.

    Attributes:
        prompt_ids: at least one token. The last one predicts the first completion token, so no other branch shares it.
        completion_ids: empty if there is nothing to train on.
        key: identifies the branch in `Pack.keys`; packing does not use it.

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

    Branches are sorted by their prompts. So prompts with a common beginning ("Question: What is ...") are adjacent, and
    the common beginning is computed once, too. The last token of a prompt is never shared, because the completion must
    directly follow it.

    Attributes:
        prefix_ids: shared tokens; may be empty.
        branches: sorted by their prompts.
        shared: for each branch, the number of leading prompt tokens that it shares with the branch before it.
        length: number of slots that the tree takes in a pack.
    """

    prefix_ids: Sequence[int]
    branches: tuple[Branch, ...]
    shared: tuple[int, ...] = field(init=False, compare=False)
    length: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.branches, key=lambda branch: tuple(branch.prompt_ids)))
        prompts: list[Sequence[int]] = [(), *(branch.prompt_ids for branch in ordered)]
        shared = tuple(_count_common_start(*pair) for pair in pairwise(prompts))
        object.__setattr__(self, "branches", ordered)
        object.__setattr__(self, "shared", shared)
        object.__setattr__(self, "length", len(self.prefix_ids) + sum(map(len, ordered)) - sum(shared))

    def __len__(self) -> int:
        return self.length


def _count_common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many leading tokens two prompts have in common, not counting the last token of each."""
    pairs = zip(one[:-1], other[:-1], strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), max(0, min(len(one), len(other)) - 1))


def split_tree(tree: Tree, tokens_per_pack: int) -> list[Tree]:
    """Split a tree between branches into trees that fit into a pack. Each of them repeats the prefix.

    Raises:
        ValueError: the prefix and one branch are together longer than a pack.
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
