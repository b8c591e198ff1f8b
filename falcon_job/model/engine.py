"""How training is computed on this machine: what changes speed and memory, and results by rounding alone."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from falcon_job.errors import MachineError
from falcon_job.machine import machine
from falcon_job.model.attention import Kernel, choose_kernel
from falcon_job.packing.mask import BLOCK

Switch = Literal["on", "off"]

FULL_PACK: dict[Kernel, int] = {"flex": 8192, "sdpa": 2048}
"""Slots that fill a GPU; fewer under dense attention, whose mask grows with their square."""
SMALLER = (1, 2, 4)
"""Parts of a full pack that are tried where memory is short."""
SAFE_SHARE = 0.9
"""Of the free memory, what an estimate may fill."""
BYTES_PER_LOGIT = 12
"""A logit in 16 bits and in float32, and the gradients of both."""
PREDICTING_SHARE = 1 / 6
"""Of a pack's slots, those that predict an answer token: the output head is computed for these (SQuAD: a seventh)."""


@dataclass(frozen=True)
class Engine:
    """What the machine settings of the same names are, or resolve to.

    Attributes:
        attention: kernel of attention.
        compile: whether layers are compiled.
        activation_checkpointing: whether a layer's activations are computed again in the backward pass.
        tokens_per_pack: most slots of a pack.
    """

    attention: Kernel
    compile: Switch
    activation_checkpointing: Switch
    tokens_per_pack: int

    def __str__(self) -> str:
        return (
            f"attention {self.attention}, packs of at most {self.tokens_per_pack} tokens, compiled layers "
            f"{self.compile}, activation checkpointing {self.activation_checkpointing}"
        )


def choose_engine(model: PreTrainedModel, longest: int) -> Engine:
    """Return how to train a model, adapter included, that is loaded: as fast as its device's free memory allows.

    Args:
        model: decides the kernel; what it leaves free decides the rest.
        longest: tokens of the longest sequence, which a pack must hold.

    Raises:
        MachineError: a setting does not fit this machine or the sequences.
    """
    wanted = machine()
    kernel = choose_kernel(model.device, model.config)
    if wanted.tokens_per_pack == "auto":
        sizes = [_whole_blocks(max(FULL_PACK[kernel] // part, longest)) for part in SMALLER]
    else:
        sizes = [_usable(wanted.tokens_per_pack, kernel, longest)]
    switches: list[Switch] = ["off", "on"]
    if wanted.activation_checkpointing != "auto":
        switches = [wanted.activation_checkpointing]
    by_speed = list(product(switches, sizes))
    budget = SAFE_SHARE * free_bytes(model.device)
    fitting = [(switch, size) for switch, size in by_speed if training_bytes(model, size, switch) <= budget]
    checkpointing, tokens = next(iter(fitting), by_speed[-1])
    compiled: Switch = "on" if kernel == "flex" else "off"  # sdpa's packs may have any length
    return Engine(kernel, compiled if wanted.compile == "auto" else wanted.compile, checkpointing, tokens)


def _whole_blocks(slots: int) -> int:
    return -(-slots // BLOCK) * BLOCK


def _usable(tokens: int, kernel: Kernel, longest: int) -> int:
    """Return the slots of a pack of at most `tokens`, whole blocks under FlexAttention."""
    slots = tokens // BLOCK * BLOCK if kernel == "flex" else tokens
    if slots < longest:
        raise MachineError(
            f"FALCON_JOB_TOKENS_PER_PACK={tokens} (packs of {slots}) is below preprocess.max_tokens={longest}: raise "
            "it or lower the other"
        )
    return slots


def free_bytes(device: torch.device) -> float:
    """Return what this process may still take of a GPU's memory; infinity on a CPU."""
    if device.type != "cuda":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    reserved = torch.cuda.memory_reserved(device)
    return min(free, allowed - reserved) + reserved - torch.cuda.memory_allocated(device)


def training_bytes(model: PreTrainedModel, slots: int, checkpointing: Switch) -> float:
    """Estimate what a pack takes beside the weights, forward and backward; on Falcon-7B 5 to 20 % too much.

    A compiled layer of a frozen base keeps the outputs of its linear layers, the inputs of those with an adapter, and
    what goes into and comes out of the layer; with checkpointing, only the latter but for the layer being computed,
    whose gradients take as much twice more.
    """
    layers = decoder_layers(model)
    modules = [module for layer in layers for module in layer.modules()]
    outputs = sum(m.out_features for m in modules if isinstance(m, nn.Linear) and not m.weight.requires_grad)
    adapted = sum(m.in_features for m in modules if isinstance(m, LoraLayer))
    embeddings: Any = model.get_input_embeddings()
    vocabulary, hidden = embeddings.weight.shape
    size = embeddings.weight.element_size()
    borders = size * hidden * len(layers)
    whole = size * (outputs + adapted) + 2 * borders
    computing = 3 * whole / max(len(layers), 1)
    kept = borders if checkpointing == "on" else whole
    return float(slots * (kept + computing + vocabulary * BYTES_PER_LOGIT * PREDICTING_SHARE))


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder layers, first to last."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]
