"""Check before a run how far predictions of quantized weights diverge from those of the same weights in bf16."""

import gc
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import cpu_offload
from torch import Tensor, nn

from falcon_job.errors import JobError
from falcon_job.model.loading import load_base
from falcon_job.model.precision import PRECISIONS
from falcon_job.packing import Pack, pack_logits
from falcon_job.params import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Divergence:
    """How predictions differ from those in bf16, over the completion tokens of a pack.

    Attributes:
        kl: mean Kullback-Leibler divergence KL(bf16 || quantized) of the predicted distributions, in nats per token
            (Kullback and Leibler 1951).
        same_choice: share of tokens, 0 to 1, for which both give the highest probability to the same token.
    """

    kl: float
    same_choice: float

    def __str__(self) -> str:
        return f"{self.kl:.1e} nats per token, same most likely token in {self.same_choice:.1%} of cases"


def check_divergence(model: nn.Module, weights: Path, pack: Pack, precision: Precision) -> dict[str, float]:
    """Return the divergence of a quantized model from the same weights in bf16.

    Args:
        model: the quantized model with a fresh adapter, which has no effect yet.
        weights: folder of the base model.
        pack: the tokens to predict; its mask must be dense.
        precision: of the model.

    Raises:
        JobError: the divergence is above the precision's tolerance.
    """
    divergence = diverge(_logits(model, pack), _reference_logits(weights, pack, next(model.parameters()).device))
    tolerance = PRECISIONS[precision].divergence_tolerance
    if tolerance is not None and not divergence.kl <= tolerance:
        raise JobError(
            f"changes the predictions of these weights too much ({divergence}; at most {tolerance} nats are accepted)",
            place=f"model.precision {precision}",
            fix="use model.precision bf16",
        )
    logger.info("divergence of %s from bf16: %s", precision, divergence)
    return asdict(divergence)


def diverge(logits: Tensor, reference: Tensor) -> Divergence:
    """Return the divergence of logits from reference logits, both [N, V]."""
    ours, theirs = (values.float().log_softmax(-1) for values in (logits, reference))
    kl = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    return Divergence(float(kl), float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()))


def _reference_logits(weights: Path, pack: Pack, device: torch.device) -> Tensor:
    """Return the logits of the weights in bf16. A GPU holds one module at a time: both models would not fit into it."""
    reference = load_base(weights, "bf16", torch.device("cpu"))
    if device.type != "cpu":
        cpu_offload(reference, execution_device=device)
    try:
        return _logits(reference, pack, device)
    finally:
        del reference
        gc.collect()


@torch.no_grad()
def _logits(model: nn.Module, pack: Pack, device: torch.device | None = None) -> Tensor:
    was_training = model.training
    model.eval()
    device = device or next(model.parameters()).device
    logits = pack_logits(model, pack.to(device))
    model.train(was_training)
    return logits
