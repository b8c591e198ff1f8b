"""The memory that training needs, estimated from the shapes of a model, and the free memory of its device."""

import math
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import GradientCheckpointingLayer, PreTrainedModel

BYTES_PER_LOGIT = 12
"""A logit in 16 bits and in float32, and the gradients of both."""
BYTES_PER_TRAINED_WEIGHT = 12
"""The gradient and Adam's two states of one trained weight, in float32."""
PREDICTING_SHARE = 1 / 6
"""The share of tokens in a pack that predict an answer token; only these have logits. On SQuAD it is a seventh."""
UNCOMPILED = 1.8
"""Activation memory without compilation, relative to compiled layers: the highest measured ratio on tiny Llama, Qwen
and Falcon models."""
WITH_DORA = 3.0
"""The same ratio with DoRA, which materializes whole weights."""


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return the decoder layers of a model, first to last. Each is compiled and checkpointed separately.

    The list is empty for the few model families whose layers transformers does not mark.
    """
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def free_bytes(device: torch.device) -> float:
    """Return the number of bytes that this process may still allocate on a GPU; infinity on a CPU."""
    if device.type != "cuda":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    reserved = torch.cuda.memory_reserved(device)
    return min(free, allowed - reserved) + reserved - torch.cuda.memory_allocated(device)


def optimizer_bytes(model: nn.Module) -> int:
    """Return the bytes for the gradients and Adam states of the trained weights."""
    return BYTES_PER_TRAINED_WEIGHT * sum(p.numel() for p in model.parameters() if p.requires_grad)


def pack_bytes(model: PreTrainedModel, tokens_per_pack: int, *, compiled: bool, checkpointed: bool) -> float:
    """Estimate the bytes that the forward and backward pass of one pack need in addition to the weights.

    A decoder layer saves these tensors for the backward pass: the outputs of its frozen linear layers, the inputs of
    linear layers with an adapter (twice with dropout), and its own input and output. With activation checkpointing,
    each layer saves only its input, and one layer at a time is recomputed. The layer whose gradients are being computed
    needs three times what it saves. On Falcon-7B, the estimate is about a fifth too high.

    The experts of a mixture-of-experts model count only if they are `nn.Linear`. Otherwise transformers holds the
    experts of a layer as a single parameter, which does not tell how many experts process each token.

    Args:
        model: with its adapter; it must have a decoder layer.
        tokens_per_pack: length of a full pack in tokens.
        compiled: whether the decoder layers are compiled.
        checkpointed: whether their activations are recomputed in the backward pass.
    """
    layers = decoder_layers(model)
    modules = [module for layer in layers for module in layer.modules()]
    adapters = [module for module in modules if isinstance(module, LoraLayer)]
    outputs = sum(m.out_features for m in modules if isinstance(m, nn.Linear) and not m.weight.requires_grad)
    inputs = sum(m.in_features * (2 if _has_dropout(m) else 1) for m in adapters)
    embeddings: Any = model.get_input_embeddings()
    vocabulary, hidden = embeddings.weight.shape
    size = embeddings.weight.element_size()
    borders = size * hidden * len(layers)
    factor = WITH_DORA if any(any(m.use_dora.values()) for m in adapters) else 1.0
    factor = max(factor, 1.0 if compiled else UNCOMPILED)
    whole = factor * (size * (outputs + inputs) + 2 * borders)
    kept = borders if checkpointed else whole
    head = vocabulary * BYTES_PER_LOGIT * PREDICTING_SHARE
    return float(tokens_per_pack * (kept + 3 * whole / len(layers) + head))


def _has_dropout(adapter: LoraLayer) -> bool:
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in adapter.lora_dropout.values())
