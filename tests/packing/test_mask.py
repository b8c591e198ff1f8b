import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

from falcon_job.packing import BLOCK, BlockSparseMask, dense_mask, lay_out, may_attend
from tests.packing.strategies import SEVERAL, TREES


def seen_by_reading(layout):
    """The oracle: a slot sees the slots of its own path, found by walking positions backwards."""
    seen = []
    for slot, position in enumerate(layout.position_ids):
        path = {slot}
        at = slot
        for wanted in range(position - 1, -1, -1):
            # what goes on from a slot stands behind it, with only its own subtree between
            at = max(s for s in range(at) if layout.position_ids[s] == wanted)
            path.add(at)
        seen.append(path)
    return seen


@given(SEVERAL)
def test_a_token_sees_what_precedes_it_in_its_own_sequence_alone(trees):
    layout = lay_out(trees)
    mask = dense_mask(torch.from_numpy(layout.visible_until))

    assert mask.shape == (1, 1, len(layout.input_ids), len(layout.input_ids))
    assert mask.dtype == torch.bool
    assert [set(torch.nonzero(row)[:, 0].tolist()) for row in mask[0, 0]] == seen_by_reading(layout)


@given(st.lists(TREES, min_size=1, max_size=60), st.integers(0, 200))
def test_the_block_sparse_mask_equals_torch_s_own_made_slot_by_slot(trees, more):
    layout = lay_out(trees)
    length = len(layout.visible_until)
    size = -(-(length + more) // BLOCK) * BLOCK
    visible_until = torch.from_numpy(np.concatenate([layout.visible_until, np.arange(length, size)]))

    ours = BlockSparseMask.of(visible_until.numpy()).block_mask()
    torchs = create_block_mask(
        lambda batch, head, query, key: may_attend(query, key, visible_until), None, None, size, size, device="cpu"
    )

    assert torch.equal(ours.to_dense(), torchs.to_dense())
    for counts, indices in (("kv_num_blocks", "kv_indices"), ("full_kv_num_blocks", "full_kv_indices")):
        assert torch.equal(getattr(ours, counts), getattr(torchs, counts))
        for row in range(size // BLOCK):
            count = getattr(ours, counts)[0, 0, row]
            mine, theirs = (getattr(each, indices)[0, 0, row, :count].sort().values for each in (ours, torchs))
            assert torch.equal(mine, theirs)
    slots = torch.arange(size)
    assert torch.equal(ours.mask_mod(0, 0, slots[:, None], slots[None, :]), dense_mask(visible_until)[0, 0])
