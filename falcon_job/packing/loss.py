"""The loss and the scores of a pack; the output head is computed only at the slots that predict a completion token."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from falcon_job.packing.pack import Pack


def pack_logits(model: nn.Module, pack: Pack) -> Tensor:
    """Return the logits that predict a pack's completion tokens, [N, vocabulary], in the type of the model.

    Args:
        model: a causal language model that takes `logits_to_keep` as slot numbers (transformers >= 4.50).
        pack: on the device of the model.
    """
    output = model(
        input_ids=pack.input_ids,
        position_ids=pack.position_ids,
        attention_mask=pack.attention_mask(),
        logits_to_keep=pack.predicting,
        use_cache=False,
    )
    logits: Tensor = output.logits[0]
    return logits


def completion_loss(model: nn.Module, pack: Pack) -> Tensor:
    """Return the summed cross-entropy of a pack's completion tokens, a float32 (or wider) scalar.

    Divide it by the completion tokens of the whole step. Then accumulation, packing and the length of packs change
    nothing: a token weighs the same in whichever pack it stands.
    """
    return functional.cross_entropy(_wide(pack_logits(model, pack)), pack.targets, reduction="sum")


def token_log_probabilities(model: nn.Module, pack: Pack) -> Tensor:
    """Return the log-probability of each completion token, given what it sees, float32 (or wider) [N]."""
    log_probabilities = _wide(pack_logits(model, pack)).log_softmax(-1)
    return log_probabilities.gather(-1, pack.targets[:, None])[:, 0]


def branch_log_probabilities(model: nn.Module, pack: Pack) -> Tensor:
    """Return the log-probability of each branch's completion, float32 (or wider) [B], in the order of `pack.keys`.

    It is the sum over the branch's completion tokens, 0 where there are none.
    """
    tokens = token_log_probabilities(model, pack)
    return torch.stack([part.sum() for part in torch.split(tokens, list(pack.completion_lengths))])


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
