from collections import Counter

import pytest
from hypothesis import given

from falcon_job.packing import Branch, Tree, lay_out
from falcon_job.packing.tree import split_tree
from tests.packing.strategies import SEVERAL, TOKENS_PER_PACK, TREES


@given(SEVERAL)
def test_the_length_of_a_tree_is_the_slots_it_takes(trees):
    assert sum(map(len, trees)) == len(lay_out(trees).input_ids)


@given(TREES)
def test_branches_are_kept_in_the_order_of_their_prompts(tree):
    prompts = [branch.prompt_ids for branch in tree.branches]

    assert prompts == sorted(prompts)
    assert Tree(tree.prefix_ids, tree.branches[::-1]).shared == tree.shared


def test_shared_is_what_neighbours_begin_with_but_never_a_last_token():
    tree = Tree([7], (Branch([1, 2, 4], []), Branch([3], []), Branch([1, 2, 5], []), Branch([1, 2], [])))

    assert [branch.prompt_ids for branch in tree.branches] == [[1, 2], [1, 2, 4], [1, 2, 5], [3]]
    assert tree.shared == (0, 1, 2, 0)


@given(TREES)
def test_a_long_tree_is_split_between_branches(tree):
    pieces = split_tree(tree, TOKENS_PER_PACK)

    assert Counter(branch for piece in pieces for branch in piece.branches) == Counter(tree.branches)
    assert all(piece.prefix_ids == tree.prefix_ids and len(piece) <= TOKENS_PER_PACK for piece in pieces)


def test_a_branch_without_a_prompt_is_refused():
    """Its first completion token would be predicted by another branch."""
    with pytest.raises(ValueError, match="at least one prompt token"):
        Branch([], [2])
