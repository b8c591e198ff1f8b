"""Prefill: one forward pass over a pack of prompts that keeps their keys and values for decoding.

Each branch of the pack is a prompt with a completion to score, such as the no-answer phrase. So a single pass over a
passage and all its questions gives, for each question, the log-probability of the phrase, the logits of its first
answer token, and the keys and values from which `decoding` continues.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from falcon_job.packing import Pack, branch_log_probabilities, pack_logits


@dataclass(frozen=True, slots=True)
class Prefill:
    """The result of a forward pass over a pack of L slots and B branches.

    Attributes:
        keys: the key of each branch.
        log_probabilities: log-probability of each branch's completion, float32 [B].
        first_logits: logits of the token after each prompt, float32 [B, vocabulary].
        slots: the slots of each branch's prompt in the pack, int64.
        cache: keys and values of all slots, [1, key heads, L, head size] for each layer.
    """

    keys: tuple[Hashable, ...]
    log_probabilities: Tensor
    first_logits: Tensor
    slots: list[Tensor]
    cache: DynamicCache


def prefill(model: Any, pack: Pack, device: torch.device) -> Prefill:
    """Run a forward pass over a pack, in which every branch has a completion, and keep its keys and values.

    Args:
        model: a causal language model of transformers, bare or with an adapter.
        pack: on the CPU.
        device: of the model.
    """
    slots = [each.to(device, non_blocking=True) for each in pack.prompt_slots()]
    moved = pack.to(device, non_blocking=True)
    cache = DynamicCache()
    logits = pack_logits(model, moved, cache)
    first_logits = logits[moved.first_targets()].float()
    return Prefill(pack.keys, branch_log_probabilities(logits, moved), first_logits, slots, cache)


def prompt_cache(prefills: Sequence[Prefill]) -> tuple[DynamicCache, Tensor]:
    """Return the keys and values of all prompts as one batch, padded on the left, and the length of each prompt.

    A prefix is copied to each of its branches, but shared key heads are not expanded. So for Falcon-7B, whose 71 query
    heads share one key head, a prompt of 180 tokens takes 1.5 MB.

    Returns:
        A cache of [rows, key heads, longest prompt, head size] for each layer, and int64 [rows].
    """
    lengths = torch.tensor([len(each) for prefill in prefills for each in prefill.slots])
    width = int(lengths.max())
    # left padding: flip, pad on the right, flip back
    indices = [pad_sequence([each.flip(0) for each in prefill.slots], batch_first=True).flip(1) for prefill in prefills]
    indices = [torch.nn.functional.pad(each, (width - each.shape[1], 0)) for each in indices]
    cache = DynamicCache()
    for number in range(len(prefills[0].cache.layers)):
        layers = [prefill.cache.layers[number] for prefill in prefills]
        keys, values = (
            torch.cat([_gather_rows(getattr(layer, name), index) for layer, index in zip(layers, indices, strict=True)])
            for name in ("keys", "values")
        )
        cache.update(keys, values, number)
    return cache, lengths


def _gather_rows(states: Tensor, index: Tensor) -> Tensor:
    """Return [rows, heads, width, size] of [1, heads, L, size] for an index [rows, width]."""
    return states[0][:, index].transpose(0, 1)
