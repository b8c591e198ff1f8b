import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.packing import block_table, lay_out
from falcon_job.packing.layout import Branch, Tree, pack_trees
from falcon_job.packing.mask import BLOCK
from falcon_job.packing.pack import PackForm, attention_mask, plain_sequence, slots, supervised_tokens
from tests.packing.test_layout import TREES

SOME = st.lists(TREES, min_size=1, max_size=12)


@given(st.integers(BLOCK, 20000))
def test_a_sparse_form_has_at_most_eight_lengths_below_the_full_one_all_of_whole_blocks(capacity):
    form = PackForm.sparse(capacity)

    assert form.lengths[-1] == form.capacity <= capacity < form.capacity + BLOCK
    assert len(form.lengths) <= 9
    assert all(length % BLOCK == 0 for length in form.lengths)


def test_the_lengths_of_the_usual_form():
    assert PackForm.sparse(8192).lengths == (1024, 1536, 2560, 3072, 3584, 4608, 5120, 6144, 8192)


def test_a_form_smaller_than_a_block_holds_nothing():
    assert PackForm.sparse(BLOCK - 1).capacity == 0


@given(SOME)
def test_sparse_packs_are_padded_to_the_shortest_length_that_holds_them_and_padding_sees_itself_alone(trees):
    form = PackForm.sparse(1024)
    layout = lay_out(trees)
    size = len(layout.input_ids)
    pack = form.make_pack(layout)

    assert slots(pack) == min(length for length in form.lengths if length >= size)
    assert pack["input_ids"][0, :size].tolist() == layout.input_ids.tolist()
    assert pack["reach"][:size].tolist() == layout.reach.tolist()
    assert pack["reach"][size:].tolist() == list(range(size, slots(pack)))
    table = block_table(pack["reach"].numpy().astype(np.int64))
    assert all(torch.equal(pack[name], table[name]) for name in table)


@given(SOME)
def test_both_forms_see_and_learn_the_same(trees):
    layout = lay_out(trees)
    dense, sparse = PackForm.dense(1024).make_pack(layout), PackForm.sparse(1024).make_pack(layout)
    size = slots(dense)
    mask = attention_mask(sparse).mask_mod(0, 0, torch.arange(size)[:, None], torch.arange(size)[None, :])

    assert torch.equal(mask, attention_mask(dense)[0, 0])
    for name in ("predicting", "targets"):
        assert torch.equal(dense[name], sparse[name])
    assert dense["input_ids"][0, dense["predicting"] + 1].tolist() == dense["targets"].tolist()
    assert supervised_tokens(dense) == sum(len(b.answer_ids) for tree in trees for b in tree.branches)


@given(TREES)
def test_a_plain_sequence_has_neither_mask_nor_positions(tree):
    pack = plain_sequence(tree.__class__(tree.prefix_ids, tree.branches[:1]))

    assert attention_mask(pack) is None
    assert "position_ids" not in pack


@pytest.mark.parametrize("form", [PackForm.dense(40), PackForm.sparse(128)])
@given(trees=st.lists(TREES, min_size=1, max_size=8))
def test_no_pack_is_longer_than_the_form_allows(form, trees):
    assert all(slots(pack) <= form.capacity for pack in form.make_packs(trees))


SIZES = st.lists(st.integers(2, 1000), min_size=1, max_size=12)
"""Of trees, in slots: several packs of a thousand."""


def tree_of(number, size):
    """A tree that no other number has."""
    return Tree([number] * (size - 2), (Branch([number], [number]),))


@given(SIZES)
def test_trees_are_spread_over_as_few_packs_as_full_ones_and_padded_no_more(sizes):
    form = PackForm.sparse(1024)
    trees = [tree_of(number, size) for number, size in enumerate(sizes)]
    full, packs = pack_trees(trees, form.capacity), form.distribute(trees)

    def padded(packs):
        return sum(slots(form.make_pack(lay_out(pack))) for pack in packs)

    assert len(packs) == len(full)
    assert padded(packs) <= padded(full)
    assert sorted(tree.prefix_ids for pack in packs for tree in pack) == sorted(tree.prefix_ids for tree in trees)


def test_a_step_that_is_a_little_too_long_for_one_pack_becomes_two_even_ones():
    trees = [Tree(range(100), (Branch(range(20), range(3)),)) for _ in range(73)]  # 8,979 slots

    assert [slots(pack) for pack in PackForm.sparse(8192).make_packs(trees)] == [4608, 4608]
