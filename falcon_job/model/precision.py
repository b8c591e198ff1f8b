"""Where a model computes, and in what type; what a device cannot do is refused."""

from dataclasses import dataclass

import torch

from falcon_job.errors import MachineError
from falcon_job.machine import Machine
from falcon_job.params import Precision

# what each precision computes in beside its products; nf4 on GPUs without bf16 in fp16
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.bfloat16,
    "nf4": torch.bfloat16,
}


QUANTIZED: frozenset[Precision] = frozenset({"fp8", "nf4"})
"""Whose weights are not those of the checkpoint."""

FLOAT8_CAPABILITY = (8, 9)
"""The oldest GPUs that multiply in float8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionSpec:
    """What sets one precision apart from the others (for now only what export needs).

    Attributes:
        dtype: type of the activations, and of the weights that are not quantized.
        quantized: whether weights are rounded further than to `dtype`, so that they are not those of the checkpoint.
        merge_drift: largest mean |difference| of an answer token's log probability that merging the adapter into the
            base may make. Quantized runs are merged into bf16 weights, so theirs includes the quantization.
    """

    dtype: torch.dtype
    quantized: bool = False
    merge_drift: float


PRECISIONS: dict[Precision, PrecisionSpec] = {
    "fp32": PrecisionSpec(dtype=torch.float32, merge_drift=1e-3),
    "fp16": PrecisionSpec(dtype=torch.float16, merge_drift=0.1),
    "bf16": PrecisionSpec(dtype=torch.bfloat16, merge_drift=0.1),
    "fp8": PrecisionSpec(dtype=torch.bfloat16, quantized=True, merge_drift=0.5),
    "nf4": PrecisionSpec(dtype=torch.bfloat16, quantized=True, merge_drift=0.5),
}


def choose_device(machine: Machine) -> torch.device:
    """Return the device of this machine's settings.

    Raises:
        MachineError: CUDA is asked for and there is none.
    """
    wanted = machine.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MachineError("FALCON_JOB_DEVICE=cuda, but torch sees no CUDA device: unset it to run on the CPU")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type that a model of this precision computes in on a device.

    Raises:
        MachineError: the device cannot.
    """
    lacks_bf16 = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and lacks_bf16:
        raise MachineError(
            "model.precision bf16 needs a GPU of compute capability 8.0 or more: use fp16 or nf4 on this one"
        )
    if precision == "fp8" and device.type == "cuda" and torch.cuda.get_device_capability(device) < FLOAT8_CAPABILITY:
        raise MachineError(
            "model.precision fp8 needs a GPU of compute capability 8.9 or more (Ada, Hopper, Blackwell): use bf16 or "
            "nf4 on this one"
        )
    if precision == "fp16" and device.type == "cpu":
        raise MachineError(
            "model.precision fp16 needs a GPU (its gradients are scaled there): use bf16 or fp32 on a CPU"
        )
    return torch.float16 if precision == "nf4" and lacks_bf16 else DTYPES[precision]
