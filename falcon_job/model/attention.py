"""Attention over packs: one function for every model family, on a fused kernel for either form of the mask.

Registered with transformers as the implementation "prefix_tree", which models on its attention interface (Llama, Qwen,
Falcon3, SmolLM2, ...) take by name. Falcon's attention classes know no such interface: `model.compat` adds one.
What is passed as `attention_mask` decides: a BlockMask runs FlexAttention, a dense mask or none runs sdpa, on a CPU for
each tree of a pack apart: over the whole pack it would take most of a small model's time.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, FlexKernelOptions, flex_attention
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from falcon_job.errors import InputError, MachineError
from falcon_job.machine import Machine

IMPLEMENTATION = "prefix_tree"
Kernel = Literal["flex", "sdpa"]
SMALLEST_HEAD = 16
"""Dimensions that FlexAttention's kernels need at least."""
TRITON_CAPABILITY = (7, 0)
"""The oldest GPUs that Triton compiles for."""

KERNEL_OPTIONS = {
    "fwd_BLOCK_M": 64,
    "fwd_BLOCK_N": 64,
    "fwd_num_warps": 4,
    "fwd_num_stages": 2,
    "bwd_BLOCK_M1": 32,
    "bwd_BLOCK_N1": 64,
    "bwd_BLOCK_M2": 64,
    "bwd_BLOCK_N2": 32,
    "bwd_num_warps": 4,
    "bwd_num_stages": 2,
}
"""Tiles for the short rows of a pack's mask, the fastest of 40 on an H200, for heads of `MEASURED_HEAD` dimensions in
16 bits; FlexAttention's own are for long dense rows."""
MEASURED_HEAD = 64


def choose_implementation(config: PretrainedConfig) -> str:
    """Return the attention to load a model with: ours for Falcon and models on transformers' interface, else sdpa."""
    model: Any = AutoModelForCausalLM._model_mapping[type(config)]
    # some attend by more than a mask (Gemma-2's soft cap, GPT-OSS's sinks) and say so by not supporting sdpa
    on_interface = model._supports_attention_backend and model._supports_sdpa
    return IMPLEMENTATION if config.model_type == "falcon" or on_interface else "sdpa"


def choose_kernel(device: torch.device, config: PretrainedConfig, machine: Machine) -> Kernel:
    """Return the attention kernel for training a model on `device`.

    Raises:
        MachineError: FlexAttention is asked for where it cannot train.
    """
    served = choose_implementation(config) == IMPLEMENTATION and _head_size(config) >= SMALLEST_HEAD
    usable = served and _compiles_kernels(device)
    wanted = machine.attention
    if wanted == "flex" and not usable:
        raise MachineError(
            "FALCON_JOB_ATTENTION=flex needs a GPU of compute capability 7.0 or more, Triton, and a model on "
            f"transformers' attention interface whose heads have at least {SMALLEST_HEAD} dimensions: unset it, or set "
            "it to sdpa"
        )
    return "flex" if usable and wanted != "sdpa" else "sdpa"


def _compiles_kernels(device: torch.device) -> bool:
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= TRITON_CAPABILITY


def _head_size(config: PretrainedConfig) -> int:
    """Return the dimensions of a head; 0 where the configuration does not tell."""
    text = config.get_text_config()
    hidden, heads = getattr(text, "hidden_size", 0), getattr(text, "num_attention_heads", 0)
    return getattr(text, "head_dim", None) or (hidden // heads if heads else 0)


def prefix_tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend by a fused kernel.

    Args:
        module: the layer; not used.
        query: [B, H, L, D].
        key: [B, G, S, D], G a divisor of H: each is for H / G query heads side by side.
        value: as key.
        attention_mask: a BlockMask; or bool [B, 1, L, S]; or None for a causal sequence.
        scaling: factor of the scores; None: 1 / sqrt(D).
        position_ids: [B, L]; where they are 0 a tree begins, which sees nothing that lies before.

    Returns:
        [B, L, H, D], and None in place of the scores.
    """
    # Kernels are fused for as many key heads as query heads; a single one that is expanded is a view.
    key, value = _expand(key, query.shape[1]), _expand(value, query.shape[1])
    if isinstance(attention_mask, BlockMask):
        output = _compiled_flex_attention()(
            query,
            key,
            value,
            block_mask=attention_mask,
            scale=scaling,
            kernel_options=_kernel_options(query),
        )
    elif attention_mask is None or not _may_split(query, key, position_ids):
        causal = attention_mask is None and query.shape[2] > 1
        output = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, is_causal=causal, scale=scaling
        )
    else:
        output = _attend_by_tree(query, key, value, attention_mask, scaling, cast("Tensor", position_ids)[0])
    return output.transpose(1, 2).contiguous(), None


def _may_split(query: Tensor, key: Tensor, position_ids: Tensor | None) -> bool:
    """Tell whether to look for trees: in one row without a cache; a GPU, or a compiled layer, would wait for it."""
    one_row = position_ids is not None and len(query) == 1 and query.shape[2] == key.shape[2]
    return one_row and query.device.type == "cpu" and not torch.compiler.is_compiling()


def _attend_by_tree(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, positions: Tensor
) -> Tensor:
    """Attend within each tree of a pack, [1, H, L, D]: a token at position 0 and what follows see nothing before it."""
    starts = [0, *((positions[1:] == 0).nonzero().flatten() + 1).tolist(), len(positions)]
    lengths = [stop - start for start, stop in pairwise(starts)]
    trees = zip(*(heads.split(lengths, dim=2) for heads in (query, key, value)), strict=True)
    outputs = [
        functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[..., start:stop, start:stop], scale=scaling)
        for (q, k, v), (start, stop) in zip(trees, pairwise(starts), strict=True)
    ]
    return torch.cat(outputs, dim=2)


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    """Return FlexAttention, compiled; not at import, since loading the compiler takes a second."""
    return torch.compile(flex_attention, dynamic=False)


def _kernel_options(query: Tensor) -> "FlexKernelOptions | None":
    """Return our tiles for the heads they were measured on, else None for FlexAttention's own."""
    measured = query.shape[-1] == MEASURED_HEAD and query.element_size() == 2
    return cast("FlexKernelOptions", KERNEL_OPTIONS) if measured else None


def check_window(config: PretrainedConfig, longest: int) -> None:
    """Make sure that a model attends over whole sequences: a pack's mask takes the place of its own.

    Raises:
        InputError: it attends over a shorter window.
    """
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    layers = getattr(text, "layer_types", None) or ["sliding_attention"]
    if window and window < longest and any("sliding" in layer for layer in layers):
        raise InputError(
            f"model.source attends over {window} tokens at a time, fewer than preprocess.max_tokens={longest}, which "
            f"packs do not imitate: set preprocess.max_tokens to at most {window}"
        )


def _expand(heads: Tensor, number: int) -> Tensor:
    """Return [B, G, S, D] as [B, number, S, D], each head repeated."""
    batch, groups, length, size = heads.shape
    if groups == number:
        return heads
    return heads[:, :, None].expand(batch, groups, number // groups, length, size).reshape(batch, number, length, size)


AttentionInterface.register(IMPLEMENTATION, prefix_tree_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
