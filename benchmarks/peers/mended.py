"""What Falcon's attention in transformers lacks for peers: a fused kernel, and packed sequences kept apart.

It attends causally within each sequence of a row. A sequence begins where positions do; padding on the right, which no
token of a sequence sees, needs no mask. On a GPU packed rows in 16 bits run torch's variable-length attention, else
each sequence its own sdpa. Falcon is loaded with it as `mended`, which importing this module registers.
"""

from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, Cache
from transformers.masking_utils import AttentionMaskInterface
from transformers.models.falcon import modeling_falcon

IMPLEMENTATION = "mended"


@dataclass(frozen=True)
class Sequences:
    """Where the sequences of a row lie: int32 bounds on its device, one more than sequences, and their lengths."""

    bounds: Tensor
    lengths: list[int]

    @classmethod
    def at(cls, positions: Tensor) -> "Sequences":
        """Find them by position_ids, int64 [1, L]."""
        starts = (positions[0] == 0).nonzero().flatten()
        bounds = torch.cat([starts, torch.tensor([positions.shape[1]], device=positions.device)]).int()
        return cls(bounds, bounds.diff().tolist())


_latest: tuple[Tensor, Sequences] | None = None


def _sequences(positions: Tensor) -> Sequences:
    """Return the sequences of a row, found once for all layers."""
    global _latest
    if _latest is None or _latest[0] is not positions:
        _latest = (positions, Sequences.at(positions))
    return _latest[1]


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
        packed = _sequences(position_ids) if batch == 1 and position_ids is not None else None
        if packed and len(packed.lengths) > 1:
            output = _apart(query, key, value, packed)
        else:
            output = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.dense(output.transpose(1, 2).flatten(2)), None


def _apart(query: Tensor, key: Tensor, value: Tensor, packed: Sequences) -> Tensor:
    """Attend within each sequence; [1, H, L, D] each."""
    if query.is_cuda and query.element_size() == 2:
        return _by_variable_length(query, key, value, packed)
    parts = zip(*(tensor.split(packed.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    return torch.cat([functional.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in parts], dim=2)


def _by_variable_length(query: Tensor, key: Tensor, value: Tensor, packed: Sequences) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    parameters = signature(varlen_attn).parameters  # torch 2.10 says it so, later ones by a window
    causal: dict[str, Any] = {"is_causal": True} if "is_causal" in parameters else {"window_size": (-1, 0)}
    query, key, value = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    longest = max(packed.lengths)
    output: Any = varlen_attn(query, key, value, packed.bounds, packed.bounds, longest, longest, **causal)
    mixed: Tensor = output.transpose(0, 1)[None]
    return mixed


modeling_falcon.FALCON_ATTENTION_CLASSES[IMPLEMENTATION] = MendedFalconAttention
AttentionInterface.register(IMPLEMENTATION, MendedFalconAttention.forward)  # its name is checked, it is not called
AttentionMaskInterface.register(IMPLEMENTATION, lambda *_, **__: None)
