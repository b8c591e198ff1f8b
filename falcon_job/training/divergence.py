"""How far do the predictions of quantized weights lie from those of the same weights in bf16? Asked before a run."""

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
        kl: mean Kullback-Leibler divergence of the predicted distributions, in nats per token (Kullback and Leibler
            1951).
        same_choice: share of tokens, 0 to 1, for which both predict the same token as the most likely.
    """

    kl: float
    same_choice: float

    def __str__(self) -> str:
        return f"{self.kl:.1e} nats per token, the same choice for {self.same_choice:.1%} of tokens"


def check_divergence(model: nn.Module, weights: Path, pack: Pack, precision: Precision) -> dict[str, float]:
    """Return the divergence of a quantized model, whose adapter has no effect yet, on a pack with a dense mask.

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
    logger.info("%s diverges from bf16 by %s", precision, divergence)
    return asdict(divergence)


def diverge(logits: Tensor, reference: Tensor) -> Divergence:
    """Return the divergence of logits from reference logits, both [N, V]."""
    ours, theirs = (values.float().log_softmax(-1) for values in (logits, reference))
    kl = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    return Divergence(float(kl), float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()))


def _reference_logits(weights: Path, pack: Pack, device: torch.device) -> Tensor:
    """Return the logits of the weights in bf16. A GPU gets one module at a time: both models would not fit it."""
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
