"""The loss of a pack: cross-entropy over its answer tokens, the output head computed at those alone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from falcon_job.packing.layout import IGNORED


def answer_loss(model: nn.Module, pack: Mapping[str, Tensor]) -> Tensor:
    """Return the summed cross-entropy of a pack's answer tokens, a float32 scalar.

    Divide by the supervised tokens of the whole step: accumulation, packing and pack size then change nothing.

    Args:
        model: a causal language model that takes `logits_to_keep` as slot numbers (transformers >= 4.50).
        pack: input_ids, labels and position_ids, int64 [1, L]; attention_mask, bool [1, 1, L, L]. Without the last two
            the row is one plain causal sequence.
    """
    logits, targets = answer_logits(model, pack)
    return functional.cross_entropy(logits, targets, reduction="sum")


def answer_logits(model: nn.Module, pack: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return what predicts each answer token, float32 (or wider) [N, vocabulary], and the tokens, int64 [N]."""
    labels = pack["labels"][0]
    learned = torch.nonzero(labels != IGNORED)[:, 0]
    output = model(
        input_ids=pack["input_ids"],
        position_ids=pack.get("position_ids"),
        attention_mask=pack.get("attention_mask"),
        logits_to_keep=learned - 1,
        use_cache=False,
    )
    wide = torch.promote_types(output.logits.dtype, torch.float32)
    return output.logits[0].to(wide), labels[learned]


def count_supervised(pack: Mapping[str, Tensor]) -> int:
    """Return the number of answer tokens of a pack."""
    return int((pack["labels"] != IGNORED).sum())
