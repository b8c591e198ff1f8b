"""How training is computed on this machine: attention kernel, compilation, activation checkpointing, pack size.

These settings change results only by rounding. Machine settings (FALCON_JOB_*) that are `auto` are resolved here, from
the model and the free memory.
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
"""Tokens in a full pack: enough to keep a GPU busy, but fewer for sdpa, whose dense mask grows quadratically."""
DIVISORS = (1, 2, 4)
"""If memory is short, the length of a full pack is divided by these, in turn."""
SAFE_SHARE = 0.9
"""The largest share of the free memory that training may need, by estimate."""
MAX_COMPILED_VARIANTS = 64
"""Limit on compiled variants of a layer or of FlexAttention. Each length of a pack needs a few: for the first layer,
the other layers, and validation. Beyond the limit, torch would run uncompiled."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComputeSettings:
    """The machine settings of the same names, with `auto` resolved.

    Attributes:
        attention: attention kernel.
        compile: whether decoder layers are compiled.
        activation_checkpointing: whether activations are recomputed in the backward pass.
        tokens_per_pack: maximum length of a pack in tokens.
    """

    attention: Kernel
    compile: Switch
    activation_checkpointing: Switch
    tokens_per_pack: int

    def packer(self) -> Packer:
        """Return the packer for the attention kernel."""
        return (Packer.block_sparse if self.attention == "flex" else Packer.dense)(self.tokens_per_pack)

    def __str__(self) -> str:
        return (
            f"attention {self.attention}, packs of at most {self.tokens_per_pack} tokens, compiled layers "
            f"{self.compile}, activation checkpointing {self.activation_checkpointing}"
        )


def load_for_training(weights: Path, params: Params, machine: Machine) -> tuple[PeftModel, ComputeSettings]:
    """Load the base model, add a fresh adapter, and choose the settings to train them on this machine.

    All checks that do not need the weights run before the weights are loaded.

    Raises:
        InputError: the model cannot be loaded, or does not work with packing.
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
    """Return the values of `tokens_per_pack` to choose from, largest first; only one if the user has set it.

    Args:
        kernel: attention kernel; FlexAttention needs whole blocks.
        longest: length of the longest sequence in tokens; it must fit into a pack.
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
    """Return the fastest settings with which training fits into the free memory of the model's device.

    If none fit, log a warning and return those that need the least memory.

    Args:
        model: the loaded model with its adapter.
        kernel: attention kernel.
        choices: values of `tokens_per_pack`, as `tokens_per_pack_choices` returns them.
        machine: the machine settings.

    Raises:
        MachineError: the user asked for activation checkpointing, but the model does not support it.
    """
    if not decoder_layers(model):  # nothing to compile, and nothing to estimate memory from
        return ComputeSettings(kernel, "off", "off", choices[-1])
    wanted = machine.compile
    compiled: Switch = wanted if wanted != "auto" else "on" if kernel == "flex" else "off"
    # assumes that longer packs are faster than shorter ones, and both are faster than recomputing activations
    by_speed = [
        ComputeSettings(kernel, compiled, checkpointing, tokens)
        for checkpointing in _checkpointing_choices(model, machine)
        for tokens in choices
    ]
    budget = SAFE_SHARE * (free_bytes(model.device) - optimizer_bytes(model))
    fitting = [settings for settings in by_speed if training_bytes(model, settings) <= budget]
    if not fitting:
        logger.warning(
            "training needs about %.1f GB in addition to the weights, but only %.1f GB are free: if it runs out of "
            "memory, lower FALCON_JOB_TOKENS_PER_PACK, or set FALCON_JOB_ACTIVATION_CHECKPOINTING=on, or set "
            "model.precision to nf4",
            training_bytes(model, by_speed[-1]) / 1e9,
            max(0.0, budget) / 1e9,
        )
    return (fitting or by_speed[-1:])[0]


def _checkpointing_choices(model: PreTrainedModel, machine: Machine) -> list[Switch]:
    """Return the values of `activation_checkpointing` to choose from, faster first."""
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
    """Estimate the bytes that a full pack needs in addition to the weights: see `memory.pack_bytes`."""
    return pack_bytes(
        model,
        settings.tokens_per_pack,
        compiled=settings.compile == "on",
        checkpointed=settings.activation_checkpointing == "on",
    )


def prepare_layers(model: PreTrainedModel, settings: ComputeSettings) -> None:
    """Set up compilation and activation checkpointing for the decoder layers of a model, including its adapter."""
    torch.compiler.config.recompile_limit = MAX_COMPILED_VARIANTS
    if settings.activation_checkpointing == "on":
        # transformers 5.23 deprecates this name; the new one, activation_checkpointing_enable, is not in 5.17
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
    if settings.compile == "on":
        # otherwise torch 2.11 traces into this custom autograd function and compiles it without a gradient
        torch.compiler.allow_in_graph(float8_product)
        for layer in decoder_layers(model):
            layer.compile(dynamic=settings.attention == "sdpa")  # with sdpa, packs may have any length
