import torch
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.packing import dense_mask, lay_out
from tests.packing.test_layout import TREES


def seen_by_reading(trees):
    """The oracle: walk each question as its own sequence and note which slots stand before each token."""
    sees = {}
    start = 0
    for tree in trees:
        prefix = list(range(start, start + len(tree.prefix_ids)))
        for i, slot in enumerate(prefix):
            sees[slot] = set(prefix[: i + 1])
        start += len(prefix)
        for branch in tree.branches:
            own = list(range(start, start + len(branch)))
            for i, slot in enumerate(own):
                sees[slot] = {*prefix, *own[: i + 1]}
            start += len(own)
    return sees


@given(st.lists(TREES, min_size=1, max_size=4))
def test_each_token_sees_its_passage_and_what_stands_before_it_in_its_own_question_and_nothing_else(trees):
    layout = lay_out(trees)
    mask = dense_mask(torch.from_numpy(layout.tree_ids), torch.from_numpy(layout.branch_ids))

    assert mask.shape == (1, 1, len(layout.input_ids), len(layout.input_ids))
    assert mask.dtype == torch.bool
    seen = {query: set(torch.nonzero(row)[:, 0].tolist()) for query, row in enumerate(mask[0, 0])}
    assert seen == seen_by_reading(trees)
