"""A data collator that adds prefix sharing to a plain transformers.Trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from falcon_job.packing.layout import lay_out
from falcon_job.packing.mask import dense_mask
from falcon_job.packing.tree import Branch, Tree


@dataclass(frozen=True)
class PrefixTreeCollator:
    """Concatenates the trees of a micro-batch into one row.

    Each item is a `Tree` or a mapping with the keys `prefix_ids` and `branches`. Each branch in a mapping has the keys
    `prompt_ids` and `completion_ids`. The batch holds `input_ids`, `position_ids` and `labels`, int64 [1, L], and
    `attention_mask`, bool [1, 1, L, L]. The model's built-in (shifted) loss on this batch is the mean over all
    completion tokens, as it is for separate sequences. Load the model with `attn_implementation="sdpa"`.

    >>> from transformers import FalconConfig, FalconForCausalLM, Trainer, TrainingArguments
    >>> config = FalconConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=False)
    >>> model = FalconForCausalLM._from_config(config, attn_implementation="sdpa")
    >>> questions = [{"prompt_ids": [7, 8], "completion_ids": [9, 1]}, {"prompt_ids": [7, 6], "completion_ids": [5, 1]}]
    >>> trees = [{"prefix_ids": [2, 3, 4], "branches": questions}] * 8
    >>> arguments = TrainingArguments("output", max_steps=2, remove_unused_columns=False, report_to="none")
    >>> trainer = Trainer(model, arguments, train_dataset=trees, data_collator=PrefixTreeCollator())
    >>> trainer.train()  # doctest: +ELLIPSIS
    {'train_runtime': ...}
    TrainOutput(global_step=2, ...)
    """

    def __call__(self, items: Sequence[Tree | Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the model inputs for one row that holds all `items`."""
        trees = [item if isinstance(item, Tree) else _tree(item) for item in items]
        layout = lay_out(trees)
        return {
            "input_ids": torch.from_numpy(layout.input_ids)[None],
            "position_ids": torch.from_numpy(layout.position_ids)[None],
            "attention_mask": dense_mask(torch.from_numpy(layout.visible_until)),
            "labels": torch.from_numpy(layout.labels)[None],
        }


def _tree(item: Mapping[str, Any]) -> Tree:
    branches = (Branch(branch["prompt_ids"], branch["completion_ids"]) for branch in item["branches"])
    return Tree(item["prefix_ids"], tuple(branches))
