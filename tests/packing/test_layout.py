from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.packing import Branch, Tree, lay_out, pack_trees
from falcon_job.packing.layout import IGNORED, split_tree

TOKENS = st.integers(0, 3) | st.integers(0, 96)
"""Few enough that prompts often begin alike."""
BRANCHES = st.builds(
    Branch, st.lists(TOKENS, min_size=1, max_size=6).map(tuple), st.lists(TOKENS, max_size=4).map(tuple)
)
TREES = st.builds(Tree, st.lists(TOKENS, max_size=12).map(tuple), st.lists(BRANCHES, min_size=1, max_size=6).map(tuple))
CAPACITY = 40


def sequences(trees):
    return Counter((tree.prefix_ids, branch) for tree in trees for branch in tree.branches)


def test_a_pack_is_prefix_then_branches_and_each_branch_goes_on_where_the_prefix_ended():
    layout = lay_out([Tree([7, 8], (Branch([1], [2, 3]), Branch([4, 5], [6]))), Tree([], (Branch([9], [1]),))])

    assert layout.input_ids.tolist() == [7, 8, 1, 2, 3, 4, 5, 6, 9, 1]
    assert layout.position_ids.tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 0, 1]
    assert layout.reach.tolist() == [7, 7, 4, 4, 4, 7, 7, 7, 9, 9]
    assert layout.labels.tolist() == [IGNORED] * 3 + [2, 3] + [IGNORED] * 2 + [6, IGNORED, 1]


def test_what_prompts_begin_with_stands_once_and_their_last_tokens_are_their_own():
    layout = lay_out(
        [Tree([7], (Branch([1, 2, 4], [9]), Branch([3], [8]), Branch([1, 2, 5], [6]), Branch([1, 2], [])))]
    )

    #                                     1  2 | 1: 2 4 9 | 5 6 | 3 8
    assert layout.input_ids.tolist() == [7, 1, 2, 2, 4, 9, 5, 6, 3, 8]
    assert layout.position_ids.tolist() == [0, 1, 2, 2, 3, 4, 3, 4, 1, 2]
    assert layout.reach.tolist() == [9, 7, 2, 7, 5, 5, 7, 7, 9, 9]
    assert layout.labels.tolist() == [IGNORED] * 5 + [9, IGNORED, 6, IGNORED, 8]


@given(st.lists(TREES, min_size=1, max_size=4))
def test_every_question_can_be_read_back_from_the_slots_that_its_last_token_sees(trees):
    layout = lay_out(trees)
    slots = np.arange(len(layout.input_ids))
    read = Counter()
    for end in slots:
        seen = (slots <= end) & (end <= layout.reach)
        assert layout.position_ids[seen].tolist() == list(range(seen.sum()))
        if layout.reach[end] == end:  # nothing goes on from here
            read[tuple(layout.input_ids[seen])] += 1

    wanted = Counter((*tree.prefix_ids, *b.prompt_ids, *b.answer_ids) for tree in trees for b in tree.branches)
    assert read == wanted


@given(st.lists(TREES, min_size=1, max_size=4))
def test_every_learned_token_stands_right_behind_the_token_before_it_in_its_own_question(trees):
    layout = lay_out(trees)
    learned = np.flatnonzero(layout.labels != IGNORED)

    assert len(learned) == sum(len(branch.answer_ids) for tree in trees for branch in tree.branches)
    assert (layout.reach[learned] == layout.reach[learned - 1]).all()
    assert (layout.position_ids[learned] == layout.position_ids[learned - 1] + 1).all()


@given(st.lists(TREES, min_size=1, max_size=4))
def test_the_length_of_trees_is_the_slots_they_take(trees):
    assert sum(map(len, trees)) == len(lay_out(trees).input_ids)


@given(st.lists(TREES, min_size=1, max_size=8))
def test_packing_keeps_every_question_with_its_passage_once_and_within_capacity(trees):
    packs = pack_trees(trees, CAPACITY)

    assert all(sum(len(tree) for tree in pack) <= CAPACITY for pack in packs)
    assert sequences(tree for pack in packs for tree in pack) == sequences(trees)


@given(st.lists(TREES, min_size=1, max_size=8))
def test_packing_is_decided_by_the_trees_alone(trees):
    assert pack_trees(trees, CAPACITY) == pack_trees(list(trees), CAPACITY)


@given(TREES)
def test_a_long_tree_is_cut_between_branches(tree):
    pieces = split_tree(tree, CAPACITY)

    assert Counter(branch for piece in pieces for branch in piece.branches) == Counter(tree.branches)
    assert all(piece.prefix_ids == tree.prefix_ids and len(piece) <= CAPACITY for piece in pieces)


def test_two_half_full_trees_share_a_pack():
    tree = Tree([1] * 10, (Branch([2], [3]),))

    assert [len(pack) for pack in pack_trees([tree] * 4, 24)] == [2, 2]


def test_a_sequence_longer_than_a_pack_is_refused_with_both_lengths():
    with pytest.raises(ValueError, match=r"13 tokens does not fit a pack of 12"):
        pack_trees([Tree([1] * 10, (Branch([2], [3, 4]),))], 12)


def test_a_branch_without_prompt_is_refused_since_its_answer_would_be_predicted_from_elsewhere():
    with pytest.raises(ValueError, match="at least one prompt token"):
        lay_out([Tree([1], (Branch([], [2]),))])


def test_an_empty_pack_is_refused():
    with pytest.raises(ValueError, match="at least one tree"):
        lay_out([])
