"""All patches of libraries, each with the versions that need it. A canary test fails when one is no longer needed.

Patches:

- `FalconFusedAttention` in place of Falcon's own attention
- `quantizable_falcon`, while a Falcon is loaded in 4 bits
- `keep_4bit_weights`, for 4-bit weights on some CPUs
- `multiply_float8`, on a private function of torch

`model/` also uses these private or undocumented names of libraries, because there are no public ones:

- `PreTrainedModel._supports_sdpa` (transformers) in `attention.choose_implementation`: the only sign that the attention
  of a model needs more than a mask
- `LoraLayer.cast_input_dtype_enabled` (peft) in `adapter`: only a context manager for the forward pass is documented
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.models.falcon import modeling_falcon

from falcon_job.model.attention import IMPLEMENTATION, fused_attention


class FalconFusedAttention(modeling_falcon.FalconAttention):
    """Falcon's attention with a fused kernel and a dense or a block-sparse mask.

    transformers up to 5.23 (at least) calls sdpa with 71 query heads and one key head. No fused kernel supports that,
    so all scores are written to memory. With 8,192 tokens of Falcon-7B on an H200, this takes 99.5 ms per layer,
    instead of 1.36 ms with the key head expanded. Falcon does not use transformers' attention interface either, so it
    cannot get a block-sparse mask.
    """

    def forward(
        self,
        hidden_states: Tensor,
        alibi: Tensor | None,
        attention_mask: Any,
        position_ids: Tensor | None = None,
        layer_past: Cache | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        position_embeddings: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Return the outputs for hidden states, both [B, L, hidden], and None in place of the attention weights."""
        batch, length, _hidden = hidden_states.shape
        # each group holds its query heads, one key head and one value head (7B has one group, 40B has eight)
        heads = self.query_key_value(hidden_states).view(batch, length, self.num_kv_heads, -1, self.head_dim)
        query = heads[..., :-2, :].flatten(2, 3).transpose(1, 2)
        key, value = heads[..., -2, :].transpose(1, 2), heads[..., -1, :].transpose(1, 2)
        query, key = modeling_falcon.apply_rotary_pos_emb(query, key, *position_embeddings)
        if layer_past is not None:
            key, value = layer_past.update(key, value, self.layer_idx)
        output, _scores = fused_attention(self, query, key, value, attention_mask, position_ids=position_ids)
        return self.dense(output.flatten(2)), None


modeling_falcon.FALCON_ATTENTION_CLASSES[IMPLEMENTATION] = FalconFusedAttention


@contextmanager
def quantizable_falcon() -> Iterator[None]:
    """Let bitsandbytes quantize the linear layers of a Falcon model that is built within this context.

    transformers 5.5 to 5.23 (at least) quantizes only layers whose type is exactly `torch.nn.Linear`. Falcon's layers
    are of a subclass that computes the same, so loading in 4 bits silently quantizes no layer. (4.57 to 5.3 quantized
    subclasses, too.)
    """
    library: Any = modeling_falcon
    original = library.FalconLinear
    library.FalconLinear = torch.nn.Linear
    try:
        yield
    finally:
        library.FalconLinear = original


def keep_4bit_weights(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for a CPU's bfloat16 instructions at the first forward pass.

    Repacking rounds the scales. Each `state_dict()`, as for a checkpoint or another adapter, unpacks the weights, but
    does not restore the scales. So in bitsandbytes 0.50 (at least), the frozen base changes during a run. GPUs, and
    CPUs without these instructions, never repack.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def multiply_float8(
    rows: Tensor, columns: Tensor, row_scale: Tensor, column_scale: Tensor, *, fast_accumulation: bool = True
) -> Tensor:
    """Multiply two float8 matrices, with one scale per row of the first and one per column of the second.

    The public `torch.nn.functional.scaled_mm` gives the same bits, but has no CPU kernel in torch 2.11. It can replace
    this function once torch 2.12 is required.

    Args:
        rows: float8 [M, K], in row-major order.
        columns: float8 [K, N], in column-major order; K and N must be multiples of 16.
        row_scale: float32 [M, 1]; or [1, 1], for one scale per matrix, if `column_scale` is [1, 1], too.
        column_scale: float32 [1, N] or [1, 1].
        fast_accumulation: accumulate in the tensor cores with less than float32 precision (on Hopper GPUs).

    Returns:
        bfloat16 [M, N].
    """
    return torch._scaled_mm(
        rows,
        columns,
        scale_a=row_scale,
        scale_b=column_scale,
        out_dtype=torch.bfloat16,
        use_fast_accum=fast_accumulation,
    )
