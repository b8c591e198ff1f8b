"""How training is computed on this machine: what changes speed and memory, and results by rounding alone."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from falcon_job.errors import MachineError
from falcon_job.machine import Machine
from falcon_job.model.attention import Kernel
from falcon_job.packing import BLOCK, Packer

Switch = Literal["on", "off"]

FULL_PACK: dict[Kernel, int] = {"flex": 8192, "sdpa": 2048}
"""Slots that fill a GPU; fewer under dense attention, whose mask grows with their square."""
SMALLER = (1, 2, 4)
"""Parts of a full pack that are tried where memory is short."""
SAFE_SHARE = 0.9
"""Of the free memory, what an estimate may fill."""
BYTES_PER_LOGIT = 12
"""A logit in 16 bits and in float32, and the gradients of both."""
BYTES_PER_TRAINED = 12
"""A gradient and Adam's two states of a trained number, in float32."""
PREDICTING_SHARE = 1 / 6
"""Of a pack's slots, those that predict an answer token: the output head is computed for these (SQuAD: a seventh)."""
UNCOMPILED = 1.8
"""What layers keep as they are, where compiled ones keep 1: most of what tiny Llama, Qwen and Falcon models kept."""
WITH_DORA = 3.0
"""The same with DoRA, which writes whole weights out."""

logger = logging.getLogger(__name__)


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

    def packer(self) -> Packer:
        """Return what makes packs for the attention kernel."""
        return (Packer.block_sparse if self.attention == "flex" else Packer.dense)(self.tokens_per_pack)

    def __str__(self) -> str:
        return (
            f"attention {self.attention}, packs of at most {self.tokens_per_pack} tokens, compiled layers "
            f"{self.compile}, activation checkpointing {self.activation_checkpointing}"
        )


def pack_sizes(kernel: Kernel, longest: int, machine: Machine) -> list[int]:
    """Return the sizes that full packs may have, largest first: all that are tried, or the one that is set.

    Args:
        kernel: of attention.
        longest: tokens of the longest sequence, which a pack must hold.
        machine: what is set.

    Raises:
        MachineError: FALCON_JOB_TOKENS_PER_PACK is too small for it.
    """
    wanted = machine.tokens_per_pack
    if wanted == "auto":
        return [_whole_blocks(max(FULL_PACK[kernel] // part, longest)) for part in SMALLER]
    slots = wanted // BLOCK * BLOCK if kernel == "flex" else wanted
    if slots < longest:
        raise MachineError(
            f"FALCON_JOB_TOKENS_PER_PACK={wanted} (packs of {slots}) is below preprocess.max_tokens={longest}: raise "
            "it or lower the other"
        )
    return [slots]


def _whole_blocks(slots: int) -> int:
    return -(-slots // BLOCK) * BLOCK


def choose_engine(model: PreTrainedModel, kernel: Kernel, sizes: Sequence[int], machine: Machine) -> Engine:
    """Return how to train a model, adapter included, that is loaded: as fast as its device's free memory allows.

    Args:
        model: what it leaves free decides.
        kernel: of attention.
        sizes: of packs, as `pack_sizes` returns them.
        machine: what is set.

    Raises:
        MachineError: activation checkpointing is asked of a model that has none.
    """
    if not decoder_layers(model):  # none to compile, and none whose memory could be estimated
        return Engine(kernel, "off", "off", sizes[-1])
    wanted = machine.compile
    compiled: Switch = wanted if wanted != "auto" else "on" if kernel == "flex" else "off"
    # longer packs are taken to be faster than shorter ones, and both than computing activations again
    by_speed = [Engine(kernel, compiled, switch, size) for switch in _switches(model, machine) for size in sizes]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    budget = SAFE_SHARE * (free_bytes(model.device) - BYTES_PER_TRAINED * trained)
    fitting = [engine for engine in by_speed if training_bytes(model, engine) <= budget]
    if not fitting:
        logger.warning(
            "training takes about %.1f GB beside the weights and %.1f GB are free: if it runs out of memory, set "
            "FALCON_JOB_TOKENS_PER_PACK lower, FALCON_JOB_ACTIVATION_CHECKPOINTING=on, or model.precision nf4",
            training_bytes(model, by_speed[-1]) / 1e9,
            max(0.0, budget) / 1e9,
        )
    return (fitting or by_speed[-1:])[0]


def _switches(model: PreTrainedModel, machine: Machine) -> list[Switch]:
    """Return the ways to treat activations that may be tried, the faster first."""
    wanted = machine.activation_checkpointing
    if wanted == "on" and not model.supports_gradient_checkpointing:
        raise MachineError(
            f"FALCON_JOB_ACTIVATION_CHECKPOINTING=on: a {model.config.model_type} model has none on the installed "
            "transformers: unset it"
        )
    if wanted != "auto":
        return [wanted]
    return ["off", "on"] if model.supports_gradient_checkpointing else ["off"]


def free_bytes(device: torch.device) -> float:
    """Return what this process may still take of a GPU's memory; infinity on a CPU."""
    if device.type != "cuda":
        return math.inf
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    reserved = torch.cuda.memory_reserved(device)
    return min(free, allowed - reserved) + reserved - torch.cuda.memory_allocated(device)


def training_bytes(model: PreTrainedModel, engine: Engine) -> float:
    """Estimate what a full pack takes beside the weights, forward and backward; on Falcon-7B about a fifth too much.

    A compiled layer of a frozen base keeps the outputs of its linear layers, the inputs of those with an adapter (a
    copy for each with dropout), and what goes into and comes out of it; with checkpointing only the latter but for the
    layer being computed, whose gradients take as much twice more. Experts that are no linear layers are not counted.
    """
    layers = decoder_layers(model)
    modules = [module for layer in layers for module in layer.modules()]
    adapters = [module for module in modules if isinstance(module, LoraLayer)]
    outputs = sum(m.out_features for m in modules if isinstance(m, nn.Linear) and not m.weight.requires_grad)
    inputs = sum(m.in_features * (2 if _drops(m) else 1) for m in adapters)
    embeddings: Any = model.get_input_embeddings()
    vocabulary, hidden = embeddings.weight.shape
    size = embeddings.weight.element_size()
    borders = size * hidden * len(layers)
    factor = WITH_DORA if any(any(m.use_dora.values()) for m in adapters) else 1.0
    factor = max(factor, UNCOMPILED if engine.compile == "off" else 1.0)
    whole = factor * (size * (outputs + inputs) + 2 * borders)
    kept = borders if engine.activation_checkpointing == "on" else whole
    head = vocabulary * BYTES_PER_LOGIT * PREDICTING_SHARE
    return float(engine.tokens_per_pack * (kept + 3 * whole / len(layers) + head))


def _drops(adapter: LoraLayer) -> bool:
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in adapter.lora_dropout.values())


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder layers, first to last."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]
