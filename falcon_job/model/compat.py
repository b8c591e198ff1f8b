"""Patches of libraries, each with the versions that need it; a test fails once one is not needed any more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.models.falcon import modeling_falcon

from falcon_job.model.attention import IMPLEMENTATION, prefix_tree_attention


class FalconPackAttention(modeling_falcon.FalconAttention):
    """Falcon's attention on a fused kernel.

    transformers 5.23 (at least) calls sdpa with 71 query heads and one key head, for which no kernel is fused, so that
    all scores are written out: 99.5 ms a layer at 8,192 tokens of Falcon-7B on an H200, 1.36 ms with the head expanded.
    And it takes no block-sparse mask, as Falcon is not on the attention interface.
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
        """Return [B, L, hidden] for hidden states of that shape; the score matrix is never made."""
        batch, length, _hidden = hidden_states.shape
        # in each group: its query heads, one key head, one value head (7B: one group; 40B: eight)
        heads = self.query_key_value(hidden_states).view(batch, length, self.num_kv_heads, -1, self.head_dim)
        query = heads[..., :-2, :].flatten(2, 3).transpose(1, 2)
        key, value = heads[..., -2, :].transpose(1, 2), heads[..., -1, :].transpose(1, 2)
        query, key = modeling_falcon.apply_rotary_pos_emb(query, key, *position_embeddings)
        if layer_past is not None:
            key, value = layer_past.update(key, value, self.layer_idx)
        output, _scores = prefix_tree_attention(self, query, key, value, attention_mask, position_ids=position_ids)
        return self.dense(output.flatten(2)), None


modeling_falcon.FALCON_ATTENTION_CLASSES[IMPLEMENTATION] = FalconPackAttention


@contextmanager
def quantizable_falcon() -> Iterator[None]:
    """Let bitsandbytes quantize Falcon's linear layers while a model is built.

    transformers 5.5 to 5.23 (at least) converts only layers whose type is exactly `torch.nn.Linear`; Falcon's are of a
    subclass with the same mathematics, so 4-bit loading leaves all of them as they are and says nothing. (4.57 to 5.3
    converted subclasses, too.)
    """
    library: Any = modeling_falcon
    original = library.FalconLinear
    library.FalconLinear = torch.nn.Linear
    try:
        yield
    finally:
        library.FalconLinear = original


def keep_4bit_weights(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights anew for a CPU's bfloat16 instructions, at the first answer.

    Packing rounds the scales, and unpacking (at every `state_dict()`: a checkpoint, another adapter) does not restore
    them: in bitsandbytes 0.50 (at least) the frozen base changes during a run. Other devices and CPUs never pack.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
