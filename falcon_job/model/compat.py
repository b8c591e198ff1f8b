"""Patches of libraries, each with the versions that need it; a test fails once one is not needed any more."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.models.falcon import modeling_falcon


@contextmanager
def quantizable_falcon() -> Iterator[None]:
    """Let bitsandbytes quantize Falcon's linear layers while a model is built.

    transformers 5.5 to 5.23 (at least) converts only layers whose type is exactly `torch.nn.Linear`; Falcon's are of a
    subclass with the same mathematics, so 4-bit loading leaves all of them as they are and says nothing. (4.57 to 5.3
    converted subclasses, too.)
    """
    original = modeling_falcon.FalconLinear
    modeling_falcon.FalconLinear = torch.nn.Linear  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        modeling_falcon.FalconLinear = original  # type: ignore[misc]


def keep_4bit_weights(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights anew for a CPU's bfloat16 instructions, at the first answer.

    Packing rounds the scales, and unpacking (at every `state_dict()`: a checkpoint, another adapter) does not restore
    them: in bitsandbytes 0.50 (at least) the frozen base changes during a run. Other devices and CPUs never pack.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
