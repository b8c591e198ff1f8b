from collections import Counter

import numpy as np
import pytest
from hypothesis import given

from falcon_job.packing import Branch, Tree, lay_out
from falcon_job.packing.layout import IGNORED
from tests.packing.strategies import SEVERAL


def test_a_branch_goes_on_at_the_position_where_the_prefix_ended():
    layout = lay_out([Tree([7, 8], (Branch([1], [2, 3]), Branch([4, 5], [6]))), Tree([], (Branch([9], [1]),))])

    assert layout.input_ids.tolist() == [7, 8, 1, 2, 3, 4, 5, 6, 9, 1]
    assert layout.position_ids.tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 0, 1]
    assert layout.visible_until.tolist() == [7, 7, 4, 4, 4, 7, 7, 7, 9, 9]
    assert layout.labels.tolist() == [IGNORED] * 3 + [2, 3] + [IGNORED] * 2 + [6, IGNORED, 1]


def test_what_prompts_begin_with_stands_once():
    layout = lay_out(
        [Tree([7], (Branch([1, 2, 4], [9]), Branch([3], [8]), Branch([1, 2, 5], [6]), Branch([1, 2], [])))]
    )

    #                                     1  2 | 1: 2 4 9 | 5 6 | 3 8
    assert layout.input_ids.tolist() == [7, 1, 2, 2, 4, 9, 5, 6, 3, 8]
    assert layout.position_ids.tolist() == [0, 1, 2, 2, 3, 4, 3, 4, 1, 2]
    assert layout.visible_until.tolist() == [9, 7, 2, 7, 5, 5, 7, 7, 9, 9]
    assert layout.labels.tolist() == [IGNORED] * 5 + [9, IGNORED, 6, IGNORED, 8]


@given(SEVERAL)
def test_a_branch_can_be_read_back_from_what_its_last_token_sees(trees):
    layout = lay_out(trees)
    slots = np.arange(len(layout.input_ids))
    read = Counter()
    for end in slots:
        seen = (slots <= end) & (end <= layout.visible_until)
        assert layout.position_ids[seen].tolist() == list(range(seen.sum()))
        if layout.visible_until[end] == end:  # nothing goes on from here
            read[tuple(layout.input_ids[seen])] += 1

    wanted = Counter((*tree.prefix_ids, *b.prompt_ids, *b.completion_ids) for tree in trees for b in tree.branches)
    assert read == wanted


@given(SEVERAL)
def test_a_learned_token_stands_right_behind_its_predecessor(trees):
    layout = lay_out(trees)
    learned = np.flatnonzero(layout.labels != IGNORED)

    assert len(learned) == sum(len(branch.completion_ids) for tree in trees for branch in tree.branches)
    assert (layout.visible_until[learned] == layout.visible_until[learned - 1]).all()
    assert (layout.position_ids[learned] == layout.position_ids[learned - 1] + 1).all()


def test_an_empty_pack_is_refused():
    with pytest.raises(ValueError, match="at least one tree"):
        lay_out([])
