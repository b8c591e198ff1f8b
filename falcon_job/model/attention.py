"""Attention for packs: one function for all model families, with fused kernels.

A fused kernel never writes the scores of all pairs of tokens to memory. The `attention_mask` that a model is called
with selects the kernel:

    model(ids, attention_mask=mask.block_mask())           FlexAttention, which skips the empty blocks of the mask
    model(ids, attention_mask=dense_mask(visible_until))   scaled_dot_product_attention (sdpa)
    model(ids)                                             sdpa, causal

On a CPU, sdpa runs once for each tree of a pack. With the mask of the whole pack, it would compute all pairs of tokens,
and most pairs are of tokens in different trees.

The function is registered with transformers under the name `IMPLEMENTATION`. Models that use transformers' attention
interface (Llama, Qwen, Falcon3, SmolLM2, ...) find it by that name. Falcon does not use this interface and is patched
in `model.compat`.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, PretrainedConfig
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from falcon_job.errors import InputError, MachineError
from falcon_job.machine import Machine

IMPLEMENTATION = "falcon_job"
Kernel = Literal["flex", "sdpa"]
SMALLEST_HEAD = 16
"""The smallest head dimension that FlexAttention's kernels support."""
TRITON_CAPABILITY = (7, 0)
"""The lowest compute capability that Triton compiles for."""

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
"""Tile sizes for packs, in which most tokens attend to few others: the fastest of 40 choices on an H200, for 16-bit
heads of dimension `MEASURED_HEAD`. FlexAttention's defaults are for long, dense rows."""
MEASURED_HEAD = 64


def choose_implementation(config: PretrainedConfig) -> str:
    """Return the `attn_implementation` to load a causal language model with.

    It is ours for Falcon and for models that use transformers' attention interface, else sdpa.
    """
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    # models whose attention needs more than a mask (Gemma-2's soft cap, GPT-OSS's sinks) do not support sdpa
    on_interface = model.is_backend_compatible() and model._supports_sdpa
    return IMPLEMENTATION if config.model_type == "falcon" or on_interface else "sdpa"


def choose_kernel(device: torch.device, config: PretrainedConfig, machine: Machine) -> Kernel:
    """Return the attention kernel to train a model with on a device.

    Raises:
        MachineError: FALCON_JOB_ATTENTION asks for FlexAttention, which cannot train this model on this device.
    """
    takes_block_mask = choose_implementation(config) == IMPLEMENTATION and _head_size(config) >= SMALLEST_HEAD
    usable = takes_block_mask and _compiles_kernels(device)
    if machine.attention == "flex" and not usable:
        raise MachineError(
            "needs a GPU of compute capability 7.0 or higher, Triton, and a model that is a Falcon or uses "
            f"transformers' attention interface, with a head dimension of at least {SMALLEST_HEAD}",
            place="FALCON_JOB_ATTENTION=flex",
            fix="unset it, or set it to sdpa",
        )
    return "flex" if usable and machine.attention != "sdpa" else "sdpa"


def _compiles_kernels(device: torch.device) -> bool:
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= TRITON_CAPABILITY


def _head_size(config: PretrainedConfig) -> int:
    """Return the head dimension, or 0 if the configuration does not say."""
    text = config.get_text_config()
    hidden, heads = getattr(text, "hidden_size", 0), getattr(text, "num_attention_heads", 0)
    return getattr(text, "head_dim", None) or (hidden // heads if heads else 0)


def fused_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute attention with a fused kernel. The arguments are those of transformers' attention interface.

    Args:
        module: the attention layer; not used.
        query: [B, H, L, D].
        key: [B, G, S, D], where G divides H. Each key head serves H / G adjacent query heads.
        value: shaped like `key`.
        attention_mask: a BlockMask; or bool [B, 1, L, S], True where the query may attend; or None: causal.
        scaling: factor that multiplies the scores; None means 1 / sqrt(D).
        position_ids: [B, L]. A tree begins at each position 0, and attends to nothing before it.

    Returns:
        The outputs, [B, L, H, D], and None in place of the attention weights.
    """
    if query.shape[2] == 1 and isinstance(attention_mask, Tensor):
        return _attend_one_token(query, key, value, attention_mask, scaling), None
    # fused kernels need as many key heads as query heads; expanding a single one makes a view, not a copy
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
    elif attention_mask is not None and (lengths := _tree_lengths(query, key, position_ids)):
        output = _attend_by_tree(query, key, value, attention_mask, scaling, lengths)
    else:
        causal = attention_mask is None and query.shape[2] > 1
        output = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, is_causal=causal, scale=scaling
        )
    return output.transpose(1, 2).contiguous(), None


def _attend_one_token(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Attend from one new token per row without expanding the keys; return [B, 1, H, D].

    The query heads that share a key head become the rows of one query: [B, H, 1, D] is viewed as [B, G, H / G, D].
    """
    batch, heads, _, size = query.shape
    rows = query.view(batch, key.shape[1], -1, size)
    output = functional.scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(batch, 1, heads, size)


def _tree_lengths(query: Tensor, key: Tensor, position_ids: Tensor | None) -> list[int]:
    """Return the number of tokens in each tree of a pack: [3, 2] for positions [0, 1, 2, 0, 1].

    The list is empty if trees are not computed separately: without positions, with several rows, with a cache, on a GPU
    or in a compiled layer. The last two would have to wait for the values of the positions.
    """
    if position_ids is None or len(query) > 1 or query.shape[2] != key.shape[2]:
        return []
    if query.device.type != "cpu" or torch.compiler.is_compiling():
        return []
    positions = position_ids[0]
    starts = [0, *((positions[1:] == 0).nonzero().flatten() + 1).tolist(), len(positions)]
    return [stop - start for start, stop in pairwise(starts)]


def _attend_by_tree(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, lengths: list[int]
) -> Tensor:
    """Compute attention separately for each tree of a pack; return [1, H, L, D]."""
    trees = zip(*(heads.split(lengths, dim=2) for heads in (query, key, value)), strict=True)
    ends = accumulate(lengths)
    outputs = [
        functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask[..., end - q.shape[2] : end, end - q.shape[2] : end], scale=scaling
        )
        for (q, k, v), end in zip(trees, ends, strict=True)
    ]
    return torch.cat(outputs, dim=2)


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    """Return compiled FlexAttention. It is not compiled at import, because loading the compiler takes a second."""
    return torch.compile(flex_attention, dynamic=False)


def _kernel_options(query: Tensor) -> dict[str, int] | None:
    """Return our tile sizes for the heads that they were measured with, else None, for FlexAttention's defaults."""
    measured = query.shape[-1] == MEASURED_HEAD and query.element_size() == 2
    return KERNEL_OPTIONS if measured else None


def check_window(config: PretrainedConfig, longest: int) -> None:
    """Refuse a model whose sliding attention window is shorter than the longest sequence.

    The mask of a pack replaces the model's own mask, so tokens would attend further back than in pretraining.

    Args:
        config: of the model.
        longest: length of the longest sequence in tokens.

    Raises:
        InputError: the window is shorter than `longest`.
    """
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    layers = getattr(text, "layer_types", None) or ["sliding_attention"]
    if window and window < longest and any("sliding" in layer for layer in layers):
        raise InputError(
            f"names a model with a sliding window of {window} tokens, less than preprocess.max_tokens={longest}, and "
            "packs would ignore the window",
            place="model.source",
            fix=f"set preprocess.max_tokens to at most {window}",
        )


def _expand(heads: Tensor, number: int) -> Tensor:
    """Repeat each head: [B, G, S, D] becomes [B, number, S, D]."""
    batch, groups, length, size = heads.shape
    if groups == number:
        return heads
    return heads[:, :, None].expand(batch, groups, number // groups, length, size).reshape(batch, number, length, size)


AttentionInterface.register(IMPLEMENTATION, fused_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
