"""How training is computed on this machine: attention kernel, compilation, activation checkpointing, pack size.

None of it changes results beyond rounding. Machine settings (FALCON_JOB_*) that are `auto` are resolved here, from the
model and from the memory that is free.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from falcon_job.errors import MachineError
from falcon_job.machine import Machine
from falcon_job.model.adapter import add_adapter
from falcon_job.model.attention import Kernel, check_window, choose_kernel
from falcon_job.model.float8 import float8_product
from falcon_job.model.loading import load_base, load_config
from falcon_job.model.memory import decoder_layers, free_bytes, optimizer_bytes, pack_bytes
from falcon_job.model.precision import choose_device
from falcon_job.packing import BLOCK, Packer
from falcon_job.params import Params

Switch = Literal["on", "off"]

FULL_PACK: dict[Kernel, int] = {"flex": 8192, "sdpa": 2048}
"""Tokens that fill a GPU; fewer for sdpa, whose dense mask grows with their square."""
DIVISORS = (1, 2, 4)
"""A full pack is divided by these, in turn, where memory is short."""
SAFE_SHARE = 0.9
"""Share of the free memory that an estimate may fill."""
MAX_COMPILED_VARIANTS = 64
"""Most compiled variants of a layer or of FlexAttention: a few for each length of a pack (the first layer, the others,
validation). Beyond that torch would go on uncompiled."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComputeSettings:
    """What the machine settings of the same names are, or what `auto` was resolved to.

    Attributes:
        attention: attention kernel.
        compile: whether decoder layers are compiled.
        activation_checkpointing: whether activations are computed again in the backward pass.
        tokens_per_pack: most tokens of a pack.
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


def load_for_training(weights: Path, params: Params, machine: Machine) -> tuple[PeftModel, ComputeSettings]:
    """Load the base, add a fresh adapter, and choose how to train them on this machine.

    Whatever can be refused without the weights is refused before they are read.

    Raises:
        InputError: the model cannot be loaded, or packing cannot serve it.
        MachineError: a setting does not fit this machine, or the model does not fit its memory.
    """
    config, longest = load_config(weights), params.preprocess.max_tokens
    device = choose_device(machine)
    check_window(config, longest)
    kernel = choose_kernel(device, config, machine)
    choices = tokens_per_pack_choices(kernel, longest, machine)
    base = load_base(weights, params.model.precision, device)
    return add_adapter(base, params.lora, params.train.seed), choose_settings(base, kernel, choices, machine)


def tokens_per_pack_choices(kernel: Kernel, longest: int, machine: Machine) -> list[int]:
    """Return the numbers of tokens that a full pack may have, largest first: all that may be tried, or the one set.

    Args:
        kernel: attention kernel; FlexAttention's packs are of whole blocks.
        longest: tokens of the longest sequence, which must fit into a pack.
        machine: the machine settings.

    Raises:
        MachineError: FALCON_JOB_TOKENS_PER_PACK is less than the longest sequence.
    """
    wanted = machine.tokens_per_pack
    if wanted == "auto":
        return [_up_to_whole_blocks(max(FULL_PACK[kernel] // divisor, longest)) for divisor in DIVISORS]
    tokens = wanted // BLOCK * BLOCK if kernel == "flex" else wanted
    if tokens < longest:
        raise MachineError(
            f"(packs of {tokens} tokens) is below preprocess.max_tokens={longest}",
            place=f"FALCON_JOB_TOKENS_PER_PACK={wanted}",
            fix="raise it, or lower preprocess.max_tokens",
        )
    return [tokens]


def _up_to_whole_blocks(tokens: int) -> int:
    return -(-tokens // BLOCK) * BLOCK


def choose_settings(
    model: PreTrainedModel, kernel: Kernel, choices: Sequence[int], machine: Machine
) -> ComputeSettings:
    """Return the fastest way to train a model that fits the free memory of its device.

    Args:
        model: the loaded model with its adapter.
        kernel: attention kernel.
        choices: tokens per pack, as `tokens_per_pack_choices` returns them.
        machine: the machine settings.

    Raises:
        MachineError: activation checkpointing is asked for, but the model does not support it.
    """
    if not decoder_layers(model):  # nothing to compile, nothing to estimate memory from
        return ComputeSettings(kernel, "off", "off", choices[-1])
    wanted = machine.compile
    compiled: Switch = wanted if wanted != "auto" else "on" if kernel == "flex" else "off"
    # longer packs are taken to be faster than shorter ones, and both faster than computing activations again
    by_speed = [
        ComputeSettings(kernel, compiled, checkpointing, tokens)
        for checkpointing in _checkpointing_choices(model, machine)
        for tokens in choices
    ]
    budget = SAFE_SHARE * (free_bytes(model.device) - optimizer_bytes(model))
    fitting = [settings for settings in by_speed if training_bytes(model, settings) <= budget]
    if not fitting:
        logger.warning(
            "training takes about %.1f GB beside the weights and %.1f GB are free: if it runs out of memory, set "
            "FALCON_JOB_TOKENS_PER_PACK lower, FALCON_JOB_ACTIVATION_CHECKPOINTING=on, or model.precision nf4",
            training_bytes(model, by_speed[-1]) / 1e9,
            max(0.0, budget) / 1e9,
        )
    return (fitting or by_speed[-1:])[0]


def _checkpointing_choices(model: PreTrainedModel, machine: Machine) -> list[Switch]:
    """Return what activation checkpointing may be, the faster first."""
    wanted = machine.activation_checkpointing
    if wanted == "on" and not model.supports_gradient_checkpointing:
        raise MachineError(
            f"is not supported by {model.config.model_type} models on the installed transformers",
            place="FALCON_JOB_ACTIVATION_CHECKPOINTING=on",
            fix="unset it",
        )
    if wanted != "auto":
        return [wanted]
    return ["off", "on"] if model.supports_gradient_checkpointing else ["off"]


def training_bytes(model: PreTrainedModel, settings: ComputeSettings) -> float:
    """Estimate the bytes that a full pack takes beside the weights: see `memory.pack_bytes`."""
    return pack_bytes(
        model,
        settings.tokens_per_pack,
        compiled=settings.compile == "on",
        checkpointed=settings.activation_checkpointing == "on",
    )


def prepare_layers(model: PreTrainedModel, settings: ComputeSettings) -> None:
    """Set up the decoder layers of a base model, its adapter included: compilation and activation checkpointing."""
    torch.compiler.config.recompile_limit = MAX_COMPILED_VARIANTS
    if settings.activation_checkpointing == "on":
        # transformers 5.23 deprecates this name; the new one, activation_checkpointing_enable, is not in 5.17
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
    if settings.compile == "on":
        # torch 2.11 traces into a custom autograd function and compiles it without a gradient
        torch.compiler.allow_in_graph(float8_product)
        for layer in decoder_layers(model):
            layer.compile(dynamic=settings.attention == "sdpa")  # packs under sdpa may have any length
