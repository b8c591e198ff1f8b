"""Falcon's attention for the peers, with what transformers' own lacks: a fused kernel, and separate packed sequences.

Each sequence of a row attends causally to itself. A sequence starts wherever the position is 0. Padding on the right
needs no mask, because no token of a sequence sees it. On a GPU, packed rows in 16 bits use torch's variable-length
attention; everything else calls sdpa once per sequence.

Importing this module registers the attention: load Falcon with `attn_implementation="mended"`.
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
    """Where the sequences of a row begin and end.

    Attributes:
        bounds: the start of each sequence, then the end of the row; int32 [sequences + 1] on the row's device.
        lengths: the length of each sequence.
    """

    bounds: Tensor
    lengths: list[int]

    @classmethod
    def at(cls, positions: Tensor) -> "Sequences":
        """Return the sequences that position_ids, int64 [1, L], describe."""
        starts = (positions[0] == 0).nonzero().flatten()
        bounds = torch.cat([starts, torch.tensor([positions.shape[1]], device=positions.device)]).int()
        return cls(bounds, bounds.diff().tolist())


_latest: tuple[Tensor, Sequences] | None = None


def _sequences(positions: Tensor) -> Sequences:
    """Return the sequences of a row; found once and reused by all layers."""
    global _latest
    if _latest is None or _latest[0] is not positions:
        _latest = (positions, Sequences.at(positions))
    return _latest[1]


class MendedFalconAttention(modeling_falcon.FalconAttention):
    """Attention of a 7B-type Falcon with its one key head expanded and packed sequences kept apart."""

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
        """Return the attention output, [B, L, hidden]."""
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
    """Attend within each sequence; all tensors are [1, H, L, D]."""
    if query.is_cuda and query.element_size() == 2:
        return _by_variable_length(query, key, value, packed)
    parts = zip(*(tensor.split(packed.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    return torch.cat([functional.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in parts], dim=2)


def _by_variable_length(query: Tensor, key: Tensor, value: Tensor, packed: Sequences) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    parameters = signature(varlen_attn).parameters  # torch 2.10 has is_causal, later versions window_size
    causal: dict[str, Any] = {"is_causal": True} if "is_causal" in parameters else {"window_size": (-1, 0)}
    query, key, value = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    longest = max(packed.lengths)
    output: Any = varlen_attn(query, key, value, packed.bounds, packed.bounds, longest, longest, **causal)
    mixed: Tensor = output.transpose(0, 1)[None]
    return mixed


modeling_falcon.FALCON_ATTENTION_CLASSES[IMPLEMENTATION] = MendedFalconAttention
AttentionInterface.register(IMPLEMENTATION, MendedFalconAttention.forward)  # only the name is used
AttentionMaskInterface.register(IMPLEMENTATION, lambda *_, **__: None)
