"""From trees to the tensors a causal language model takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from falcon_job.packing.layout import Branch, Layout, Tree, lay_out
from falcon_job.packing.mask import dense_mask


@dataclass(frozen=True)
class PrefixTreeCollator:
    """Lay the trees of a batch side by side in one row: a data collator for a plain transformers.Trainer.

    An item is a `Tree`, or a mapping with `prefix_ids` and `branches` of `prompt_ids` and `answer_ids`. The batch holds
    `input_ids`, `position_ids` and `labels`, int64 [1, L], and `attention_mask`, bool [1, 1, L, L]. The model's own
    shifted loss over it is the mean over all answer tokens, as for separate sequences.
    """

    def __call__(self, items: Sequence[Tree | Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the model inputs for one row that holds all `items`."""
        return to_tensors(lay_out([item if isinstance(item, Tree) else _tree(item) for item in items]))


def to_tensors(layout: Layout) -> dict[str, Tensor]:
    """Return the model inputs of a pack: see `PrefixTreeCollator`."""
    return {
        "input_ids": torch.from_numpy(layout.input_ids)[None],
        "position_ids": torch.from_numpy(layout.position_ids)[None],
        "attention_mask": dense_mask(torch.from_numpy(layout.reach)),
        "labels": torch.from_numpy(layout.labels)[None],
    }


def _tree(item: Mapping[str, Any]) -> Tree:
    branches = tuple(Branch(branch["prompt_ids"], branch["answer_ids"]) for branch in item["branches"])
    return Tree(item["prefix_ids"], branches)
