"""What Falcon's attention in transformers lacks for peers: a fused kernel, and packed sequences kept apart.

It attends causally within each sequence of a row. A sequence begins where positions do; padding on the right, which no
token of a sequence sees, needs no mask. On a GPU packed rows run torch's variable-length attention, else each sequence
its own sdpa. `mended` is an implementation that Falcon is loaded with; importing this module registers it.
"""

from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, Cache
from transformers.masking_utils import AttentionMaskInterface
from transformers.models.falcon import modeling_falcon

IMPLEMENTATION = "mended"


class Segments:
    """Where the sequences of the latest row begin, found once for all layers."""

    positions: Tensor | None = None
    lengths: tuple[int, ...] = ()
    bounds: Tensor

    @classmethod
    def of(cls, positions: Tensor) -> type["Segments"]:
        """Find those of position_ids, int64 [1, L]."""
        if cls.positions is not positions:
            starts = (positions[0] == 0).nonzero().flatten()
            end = torch.tensor([positions.shape[1]], device=positions.device)
            cls.bounds = torch.cat([starts, end]).int()
            cls.lengths = tuple(cls.bounds.diff().tolist())
            cls.positions = positions
        return cls


class MendedFalconAttention(modeling_falcon.FalconAttention):
    """Falcon's attention (7B type) with its one key head expanded, apart for packed sequences."""

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
        """Return [B, L, hidden]."""
        batch, length, _hidden = hidden_states.shape
        heads = self.query_key_value(hidden_states).view(batch, length, -1, self.head_dim).transpose(1, 2)
        query, key, value = heads[:, :-2], heads[:, -2:-1], heads[:, -1:]
        query, key = modeling_falcon.apply_rotary_pos_emb(query, key, *position_embeddings)
        key, value = (one.expand(-1, query.shape[1], -1, -1) for one in (key, value))
        lengths = Segments.of(position_ids).lengths if batch == 1 and position_ids is not None else (length,)
        output = _causal(query, key, value) if len(lengths) == 1 else _apart(query, key, value)
        return self.dense(output.transpose(1, 2).flatten(2)), None


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True)


def _apart(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend within each of the latest `Segments`; [1, H, L, D] each."""
    if not query.is_cuda:
        parts = (tensor.split(Segments.lengths, dim=2) for tensor in (query, key, value))
        return torch.cat([_causal(*part) for part in zip(*parts, strict=True)], dim=2)
    from torch.nn.attention.varlen import varlen_attn

    parameters = signature(varlen_attn).parameters  # torch 2.10 says it so, later ones by a window
    causal: dict[str, Any] = {"is_causal": True} if "is_causal" in parameters else {"window_size": (-1, 0)}
    longest = max(Segments.lengths)
    query, key, value = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    output: Any = varlen_attn(query, key, value, Segments.bounds, Segments.bounds, longest, longest, **causal)
    return cast("Tensor", output.transpose(0, 1)[None])


modeling_falcon.FALCON_ATTENTION_CLASSES[IMPLEMENTATION] = MendedFalconAttention
AttentionInterface.register(IMPLEMENTATION, MendedFalconAttention.forward)  # its name is checked, it is not called
AttentionMaskInterface.register(IMPLEMENTATION, lambda *_, **__: None)
