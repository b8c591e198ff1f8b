"""The loss of a pack: cross-entropy over its answer tokens, the output head computed at their slots alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from falcon_job.packing.pack import Pack, attention_mask


def answer_loss(model: nn.Module, pack: Pack) -> Tensor:
    """Return the summed cross-entropy of a pack's answer tokens, a float32 (or wider) scalar.

    Divide by the supervised tokens of the whole step: accumulation, packing and pack size then change nothing.

    Args:
        model: a causal language model that takes `logits_to_keep` as slot numbers (transformers >= 4.50).
        pack: as `PackForm` makes it, or a plain sequence.
    """
    logits = pack_logits(model, pack)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(wide, pack["targets"], reduction="sum")


def pack_logits(model: nn.Module, pack: Pack) -> Tensor:
    """Return the logits that predict a pack's answer tokens, [N, vocabulary]; arguments as of `answer_loss`."""
    output = model(
        input_ids=pack["input_ids"],
        position_ids=pack.get("position_ids"),
        attention_mask=attention_mask(pack),
        logits_to_keep=pack["predicting"],
        use_cache=False,
    )
    logits: Tensor = output.logits[0]
    return logits
