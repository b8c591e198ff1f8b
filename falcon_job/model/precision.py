"""The table of precisions, one row each, and the device and data type that a model computes in.

`model.precision` says how the frozen base is held in memory and how it is multiplied. Whatever else in this project
depends on the precision (tolerances of checks, what a GPU must be able to do) is a column of `PRECISIONS`.
"""

from dataclasses import dataclass

import torch

from falcon_job.errors import MachineError
from falcon_job.machine import Machine
from falcon_job.params import Precision

Capability = tuple[int, int]
"""Compute capability of a GPU, as torch.cuda.get_device_capability returns it."""

BF16_CAPABILITY: Capability = (8, 0)
FLOAT8_CAPABILITY: Capability = (8, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionSpec:
    """What sets one precision apart from the others.

    Attributes:
        dtype: type of the activations, and of the weights that are not quantized.
        quantized: whether weights are rounded further than to `dtype`, so that they are not those of the checkpoint.
        least_capability: compute capability that a GPU needs; None: every GPU will do.
        on_cpu: whether it also runs on a CPU.
        self_check_tolerance: largest relative difference between the gradients (or the loss) of packed and of separate
            sequences that rounding explains. Questions that see each other make several times more.
        product_tolerance: where products are rounded too (fp8): largest relative difference that this may make to the
            gradients. A gradient that is lost makes 1. None: products are in `dtype`.
        divergence_tolerance: most nats a token by which predictions may differ from those of the same weights in bf16;
            None: any number is accepted. Measured for quantized weights only.
        merge_drift: largest mean |difference| of an answer token's log probability that merging the adapter into the
            base may make. Quantized runs are merged into bf16 weights, so theirs includes the quantization.
    """

    dtype: torch.dtype
    quantized: bool = False
    least_capability: Capability | None = None
    on_cpu: bool = True
    self_check_tolerance: float
    product_tolerance: float | None = None
    divergence_tolerance: float | None = None
    merge_drift: float


PRECISIONS: dict[Precision, PrecisionSpec] = {
    "fp32": PrecisionSpec(dtype=torch.float32, self_check_tolerance=1e-3, merge_drift=1e-3),
    # its gradients are scaled to stay above the smallest float16, which torch does on GPUs
    "fp16": PrecisionSpec(dtype=torch.float16, on_cpu=False, self_check_tolerance=0.1, merge_drift=0.1),
    "bf16": PrecisionSpec(
        dtype=torch.bfloat16, least_capability=BF16_CAPABILITY, self_check_tolerance=0.1, merge_drift=0.1
    ),
    # SmolLM2-135M, small and so sensitive, differs from bf16 by 0.06 nats on SQuAD in fp8, by 0.6 in nf4
    "fp8": PrecisionSpec(
        dtype=torch.bfloat16,
        quantized=True,
        least_capability=FLOAT8_CAPABILITY,
        self_check_tolerance=0.1,
        product_tolerance=0.7,
        divergence_tolerance=0.2,
        merge_drift=0.5,
    ),
    # chosen for its size, so that its divergence is reported and not judged
    "nf4": PrecisionSpec(dtype=torch.bfloat16, quantized=True, self_check_tolerance=0.1, merge_drift=0.5),
}


def choose_device(machine: Machine) -> torch.device:
    """Return the device that the machine settings name, or the GPU if there is one.

    Raises:
        MachineError: CUDA is asked for, but torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if machine.device == "cuda" and not available:
        raise MachineError(
            "asks for a GPU, but torch sees none", place="FALCON_JOB_DEVICE=cuda", fix="unset it to run on the CPU"
        )
    return torch.device("cuda" if machine.device != "cpu" and available else "cpu")


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the data type in which a model of this precision computes on a device.

    It is the precision's own; only nf4 falls back to float16 on GPUs without bfloat16.

    Raises:
        MachineError: the device does not support the precision.
    """
    spec = PRECISIONS[precision]
    if needed := _lacking(spec, device):
        usable = [name for name, other in PRECISIONS.items() if not _lacking(other, device)]
        raise MachineError(
            f"needs {needed}",
            place=f"model.precision {precision}",
            fix=f"use {', '.join(usable[:-1])} or {usable[-1]} on this machine",
        )
    if device.type == "cuda" and spec.dtype == torch.bfloat16 and _capability(device) < BF16_CAPABILITY:
        return torch.float16
    return spec.dtype


def _lacking(spec: PrecisionSpec, device: torch.device) -> str:
    """Return what a precision needs and the device is not; "" where it runs."""
    if device.type != "cuda":
        return "" if spec.on_cpu else "a GPU"
    if spec.least_capability is None or _capability(device) >= spec.least_capability:
        return ""
    return f"a GPU of compute capability {'.'.join(map(str, spec.least_capability))} or more"


def _capability(device: torch.device) -> Capability:
    return torch.cuda.get_device_capability(device)
