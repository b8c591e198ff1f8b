"""The loss of a pack and the log-probabilities of its completions.

The output head runs only at the slots that predict a completion token.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from falcon_job.packing.pack import Pack


def pack_logits(model: nn.Module, pack: Pack, cache: Any = None) -> Tensor:
    """Return the logits that predict a pack's completion tokens, [N, vocabulary], in the dtype of the model.

    Args:
        model: a causal language model whose `logits_to_keep` may be a tensor of indices (transformers >= 4.50).
        pack: must be on the device of the model.
        cache: an empty cache of transformers, to keep the keys and values of all slots in.
    """
    output = model(
        input_ids=pack.input_ids,
        position_ids=pack.position_ids,
        attention_mask=pack.attention_mask(),
        logits_to_keep=pack.predicting,
        past_key_values=cache,
        use_cache=cache is not None,
    )
    logits: Tensor = output.logits[0]
    return logits


def completion_loss(model: nn.Module, pack: Pack) -> Tensor:
    """Return the summed cross-entropy of a pack's completion tokens, a float32 (or wider) scalar.

    Divide it by the number of completion tokens in the whole step. Then each token has the same weight in any pack, and
    neither packing nor gradient accumulation changes the loss of the step.
    """
    return functional.cross_entropy(_to_float32_or_wider(pack_logits(model, pack)), pack.targets, reduction="sum")


def token_log_probabilities(logits: Tensor, pack: Pack) -> Tensor:
    """Return the log-probability of each completion token, given the tokens visible to it, float32 (or wider) [N].

    Args:
        logits: from `pack_logits`, [N, vocabulary].
        pack: must be on the device of the logits.
    """
    log_probabilities = _to_float32_or_wider(logits).log_softmax(-1)
    return log_probabilities.gather(-1, pack.targets[:, None])[:, 0]


def branch_log_probabilities(logits: Tensor, pack: Pack) -> Tensor:
    """Return the log-probability of each branch's completion, float32 (or wider) [B], in the order of `pack.keys`.

    It is the sum over the branch's completion tokens, and 0 if there are none.

    Args:
        logits: from `pack_logits`, [N, vocabulary].
        pack: must be on the device of the logits.
    """
    tokens = token_log_probabilities(logits, pack)
    return torch.stack([part.sum() for part in torch.split(tokens, list(pack.completion_lengths))])


def _to_float32_or_wider(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
