"""Prefix-tree packing: one row holds passages, each followed by its questions as branches that never see each other.

A question sees its passage and itself, so loss and gradients equal those of separate sequences, while the passage is
computed once. A library for others too:

    from falcon_job.packing import PrefixTreeCollator

    Trainer(model, args, train_dataset=trees, data_collator=PrefixTreeCollator())

where an item of `trees` is `{"prefix_ids": [...], "branches": [{"prompt_ids": [...], "answer_ids": [...]}, ...]}` and
the model was loaded with `attn_implementation="sdpa"`.
"""

from falcon_job.packing.collator import PrefixTreeCollator
from falcon_job.packing.layout import Branch, Layout, Tree, lay_out, pack_trees
from falcon_job.packing.mask import block_mask, block_table, dense_mask, may_attend

__all__ = [
    "Branch",
    "Layout",
    "PrefixTreeCollator",
    "Tree",
    "block_mask",
    "block_table",
    "dense_mask",
    "lay_out",
    "may_attend",
    "pack_trees",
]
