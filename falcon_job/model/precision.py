"""The table of precisions, one row each, and the device and data type that a model computes in.

`model.precision` says how the frozen base is stored and multiplied. Everything else that depends on the precision
(tolerances of checks, the required compute capability) is a column of `PRECISIONS`.
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
    """A row of the table of precisions.

    Attributes:
        dtype: dtype of the activations, and of the weights that are not quantized.
        quantized: whether weights are rounded further than to `dtype`, and so differ from those of the checkpoint.
        least_capability: minimum compute capability of a GPU; None for any GPU.
        on_cpu: whether it also runs on a CPU.
        self_check_tolerance: largest relative difference in gradients (or loss) between packed and separate sequences
            that rounding explains. If questions attend to each other, the difference is several times larger.
        product_tolerance: if products are rounded to float8, too (fp8): the largest relative difference that this may
            make to the gradients. If a gradient is lost, the difference is 1. None if products are in `dtype`.
        divergence_tolerance: largest divergence of the predictions from those of the same weights in bf16, in nats per
            token; None for no limit. Only measured for quantized weights.
        merge_drift: largest mean absolute change in the log probability of an answer token that merging the adapter
            into the base may cause. Quantized runs are merged into bf16 weights, so quantization adds to their change.
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
    # gradients are scaled so that they do not underflow in float16, which torch does on GPUs
    "fp16": PrecisionSpec(dtype=torch.float16, on_cpu=False, self_check_tolerance=0.1, merge_drift=0.1),
    "bf16": PrecisionSpec(
        dtype=torch.bfloat16, least_capability=BF16_CAPABILITY, self_check_tolerance=0.1, merge_drift=0.1
    ),
    # on SQuAD, SmolLM2-135M, which is small and therefore sensitive, diverges from bf16 by 0.06 nats per token in fp8
    # and by 0.3 to 0.6 in nf4
    "fp8": PrecisionSpec(
        dtype=torch.bfloat16,
        quantized=True,
        least_capability=FLOAT8_CAPABILITY,
        self_check_tolerance=0.1,
        product_tolerance=0.7,
        divergence_tolerance=0.2,
        merge_drift=0.5,
    ),
    # users choose it for its size, so its divergence is reported but not limited
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
    """Return the dtype in which a model of this precision computes on a device.

    It is the `dtype` of the precision, except that nf4 falls back to float16 on GPUs without bfloat16.

    Raises:
        MachineError: the device does not support the precision.
    """
    spec = PRECISIONS[precision]
    if needed := _missing_requirement(spec, device):
        usable = [name for name, other in PRECISIONS.items() if not _missing_requirement(other, device)]
        raise MachineError(
            f"needs {needed}",
            place=f"model.precision {precision}",
            fix=f"use {', '.join(usable[:-1])} or {usable[-1]} on this machine",
        )
    if device.type == "cuda" and spec.dtype == torch.bfloat16 and _capability(device) < BF16_CAPABILITY:
        return torch.float16
    return spec.dtype


def _missing_requirement(spec: PrecisionSpec, device: torch.device) -> str:
    """Return what a precision needs that the device does not have; "" if the precision runs on it."""
    if device.type != "cuda":
        return "" if spec.on_cpu else "a GPU"
    if spec.least_capability is None or _capability(device) >= spec.least_capability:
        return ""
    return f"a GPU of compute capability {'.'.join(map(str, spec.least_capability))} or more"


def _capability(device: torch.device) -> Capability:
    return torch.cuda.get_device_capability(device)
