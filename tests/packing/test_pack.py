from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from falcon_job.packing import BLOCK, BlockSparseMask, Branch, Packer, Tree, lay_out, plain_sequence
from tests.packing.strategies import TREES

SOME = st.lists(TREES, min_size=1, max_size=12)


@given(SOME)
def test_a_block_sparse_pack_is_padded_to_the_shortest_bucket(trees):
    packer = Packer.block_sparse(1024)
    layout = lay_out(trees)
    length = len(layout.input_ids)
    pack = packer.make_pack(trees)

    assert len(pack) == min(each for each in packer.buckets if each >= length)
    assert pack.input_ids[0, :length].tolist() == layout.input_ids.tolist()
    assert pack.mask.visible_until[:length].tolist() == layout.visible_until.tolist()
    assert pack.mask.visible_until[length:].tolist() == list(range(length, len(pack))), "padding sees itself alone"


@given(SOME)
def test_dense_and_block_sparse_packs_see_and_learn_the_same(trees):
    dense, sparse = Packer.dense(1024).make_pack(trees), Packer.block_sparse(1024).make_pack(trees)
    slots = torch.arange(len(dense))
    mask = sparse.attention_mask().mask_mod(0, 0, slots[:, None], slots[None, :])

    assert torch.equal(mask, dense.attention_mask()[0, 0])
    assert torch.equal(dense.predicting, sparse.predicting)
    assert torch.equal(dense.targets, sparse.targets)
    assert dense.input_ids[0, dense.predicting + 1].tolist() == dense.targets.tolist()


def test_a_pack_knows_its_branches_by_their_keys():
    trees = [Tree([1], (Branch([3], [7, 8], "b"), Branch([2], [9], "a"))), Tree([4], (Branch([5], [], "c"),))]
    pack = Packer.dense(64).make_pack(trees)

    assert pack.keys == ("a", "b", "c")
    assert [part.tolist() for part in torch.split(pack.targets, list(pack.completion_lengths))] == [[9], [7, 8], []]


@given(TREES)
def test_a_plain_sequence_has_neither_mask_nor_positions(tree):
    pack = plain_sequence(Tree(tree.prefix_ids, tree.branches[:1]))

    assert pack.attention_mask() is None
    assert pack.position_ids is None


@pytest.mark.parametrize("packer", [Packer.dense(40), Packer.block_sparse(128)])
@given(trees=st.lists(TREES, min_size=1, max_size=8))
def test_no_pack_is_longer_than_tokens_per_pack(packer, trees):
    assert all(len(pack) <= packer.tokens_per_pack for pack in packer.make_packs(trees))


def test_a_packer_for_less_than_a_block_holds_nothing():
    assert Packer.block_sparse(BLOCK - 1).tokens_per_pack == 0


@pytest.mark.parametrize("make", [Packer.dense, Packer.block_sparse])
def test_all_tensors_of_a_pack_move_to_a_device_together(make):
    pack = make(256).make_pack([Tree([1, 2], (Branch([3], [4]),))]).to("meta")
    sparse = isinstance(pack.mask, BlockSparseMask)
    mask = [getattr(pack.mask, each.name) for each in fields(pack.mask)] if sparse else [pack.mask]
    moved = (pack.input_ids, pack.position_ids, pack.predicting, pack.targets, *mask)

    assert {tensor.device.type for tensor in moved} == {"meta"}


def test_a_plain_sequence_moves_to_a_device_too():
    pack = plain_sequence(Tree([1, 2], (Branch([3], [4]),))).to("meta")

    assert (pack.input_ids.device.type, pack.mask, pack.position_ids) == ("meta", None, None)


@pytest.mark.parametrize("make", [Packer.dense, Packer.block_sparse])
def test_packs_come_unchanged_through_worker_processes(make):
    trees = [[Tree([1, 2], (Branch([3], [4], "key"),))]]
    packer = make(256)
    (pack,) = DataLoader(trees, batch_size=None, collate_fn=packer.make_pack, num_workers=1)
    expected = packer.make_pack(trees[0])

    assert (pack.keys, pack.completion_lengths) == (("key",), (1,))
    assert pack.input_ids.tolist() == expected.input_ids.tolist()
    assert torch.equal(dense(pack), dense(expected))


def dense(pack):
    slots = torch.arange(len(pack))
    mask = pack.attention_mask()
    return mask if isinstance(mask, torch.Tensor) else mask.mask_mod(0, 0, slots[:, None], slots[None, :])
