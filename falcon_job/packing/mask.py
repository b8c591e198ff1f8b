"""The one rule of who sees whom in a pack, and its dense form."""

import torch
from torch import Tensor


def may_attend(query: Tensor, key: Tensor, tree_ids: Tensor, branch_ids: Tensor) -> Tensor:
    """Tell whether the token in slot `query` sees the one in slot `key`.

    It does if the key is no later, stands in the same tree, and in its prefix or in the query's own branch.
    Element-wise on index tensors that broadcast: one rule for a dense mask and for a block-sparse one.

    Args:
        query: slot numbers, int64, any shape.
        key: slot numbers, int64, a shape that broadcasts with `query`.
        tree_ids: tree of each slot, int64 [L].
        branch_ids: branch of each slot, int64 [L]; 0 is the prefix.

    Returns:
        bool, the broadcast shape.
    """
    same_tree = tree_ids[query] == tree_ids[key]
    shared_or_own = (branch_ids[key] == 0) | (branch_ids[key] == branch_ids[query])
    return (query >= key) & same_tree & shared_or_own


def dense_mask(tree_ids: Tensor, branch_ids: Tensor) -> Tensor:
    """Return the whole mask of a pack, bool [1, 1, L, L] (True: attend), for models under `sdpa`.

    Under `eager` a bool mask would be added to the scores as 0 and 1, with no error: use `sdpa`.
    """
    slots = torch.arange(len(tree_ids), device=tree_ids.device)
    return may_attend(slots[:, None], slots[None, :], tree_ids, branch_ids)[None, None]
