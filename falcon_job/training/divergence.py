"""Before a run on quantized weights: how far are its predictions from those of the same weights in bf16?"""

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
from falcon_job.packing.loss import pack_logits
from falcon_job.packing.pack import Pack
from falcon_job.params import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Divergence:
    """Of predicted tokens, from bf16, over the answer tokens of a pack.

    Attributes:
        kl: mean Kullback-Leibler divergence of the distributions, nats a token (Kullback and Leibler 1951).
        same_choice: share of tokens, 0 to 1, for which both find the same one most likely.
    """

    kl: float
    same_choice: float

    def __str__(self) -> str:
        return f"{self.kl:.1e} nats a token, the same choice for {self.same_choice:.1%}"


def check_divergence(model: nn.Module, weights: Path, pack: Pack, precision: Precision) -> dict[str, float]:
    """Return the divergence of a quantized model, its adapter still without effect, on a pack under a dense mask.

    Raises:
        JobError: the divergence is above the precision's tolerance.
    """
    divergence = diverge(_logits(model, pack), _reference_logits(weights, pack, next(model.parameters()).device))
    tolerance = PRECISIONS[precision].divergence_tolerance
    if tolerance is not None and not divergence.kl <= tolerance:
        raise JobError(
            f"changes predictions too much: they differ from bf16 by {divergence}, of which {tolerance} are accepted",
            place=f"model.precision {precision}",
            fix="use bf16",
        )
    logger.info("%s differs from bf16 by %s", precision, divergence)
    return asdict(divergence)


def diverge(logits: Tensor, reference: Tensor) -> Divergence:
    """Return the divergence of logits from reference logits, both [N, V]."""
    ours, theirs = (values.float().log_softmax(-1) for values in (logits, reference))
    kl = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    return Divergence(float(kl), float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()))


def _reference_logits(weights: Path, pack: Pack, device: torch.device) -> Tensor:
    """Return the logits of the weights in bf16; on a GPU they pass through it a module at a time."""
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
    logits = pack_logits(model, {name: tensor.to(device) for name, tensor in pack.items()})
    model.train(was_training)
    return logits
