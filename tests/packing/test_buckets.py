from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.packing import BLOCK, Branch, Tree
from falcon_job.packing.buckets import bucket, distribute, first_fit, length_buckets
from tests.packing.strategies import TOKENS_PER_PACK, TREES

SIZES = st.lists(st.integers(2, 1000), min_size=1, max_size=12)
"""Of trees, in slots: several packs of a thousand."""
MANY = st.lists(TREES, min_size=1, max_size=8)


def tree_of(number, size):
    """A tree that no other number has."""
    return Tree([number] * (size - 2), (Branch([number], [number]),))


def sequences(trees):
    return Counter((tree.prefix_ids, branch) for tree in trees for branch in tree.branches)


@given(st.integers(BLOCK, 20000))
def test_there_are_at_most_nine_buckets_all_of_whole_blocks(tokens_per_pack):
    buckets = length_buckets(tokens_per_pack)

    assert buckets[-1] <= tokens_per_pack < buckets[-1] + BLOCK
    assert len(buckets) <= 9
    assert all(length % BLOCK == 0 for length in buckets)


def test_the_buckets_of_packs_of_8192_tokens():
    assert length_buckets(8192) == (1024, 1536, 2560, 3072, 3584, 4608, 5120, 6144, 8192)


def test_a_pack_shorter_than_a_block_has_no_bucket():
    assert length_buckets(BLOCK - 1) == ()


@given(MANY)
def test_every_branch_is_packed_once_with_its_prefix(trees):
    packs = first_fit(trees, TOKENS_PER_PACK)

    assert all(sum(map(len, pack)) <= TOKENS_PER_PACK for pack in packs)
    assert sequences(tree for pack in packs for tree in pack) == sequences(trees)


def test_two_half_full_trees_share_a_pack():
    tree = Tree([1] * 10, (Branch([2], [3]),))

    assert [len(pack) for pack in first_fit([tree] * 4, 24)] == [2, 2]


def test_a_sequence_longer_than_a_pack_is_refused_with_both_lengths():
    with pytest.raises(ValueError, match=r"13 tokens does not fit a pack of 12"):
        first_fit([Tree([1] * 10, (Branch([2], [3, 4]),))], 12)


@given(SIZES)
def test_buckets_take_no_more_packs_and_no_more_padding_than_full_packs(sizes):
    buckets = length_buckets(1024)
    trees = [tree_of(number, size) for number, size in enumerate(sizes)]
    full, packs = first_fit(trees, 1024), distribute(trees, buckets)

    def padded(packs):
        return sum(bucket(sum(map(len, pack)), buckets) for pack in packs)

    assert len(packs) == len(full)
    assert padded(packs) <= padded(full)
    assert sorted(tree.prefix_ids for pack in packs for tree in pack) == sorted(tree.prefix_ids for tree in trees)


def test_a_step_slightly_longer_than_a_pack_becomes_two_even_packs():
    trees = [Tree(range(100), (Branch(range(20), range(3)),)) for _ in range(73)]  # 8,979 slots

    packs = distribute(trees, length_buckets(8192))
    assert [bucket(sum(map(len, pack)), length_buckets(8192)) for pack in packs] == [4608, 4608]
