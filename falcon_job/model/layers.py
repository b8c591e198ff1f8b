"""The decoder layers of a model for training: compiled, and their activations computed again where memory is short."""

import logging

import torch
from torch import nn
from transformers import PreTrainedModel

from falcon_job.machine import machine
from falcon_job.model.attention import Kernel

COMPILED_VARIANTS = 64
"""Most variants of a layer or of FlexAttention: a few for each length of a pack (the first layer, the others,
validation). Beyond that torch would go on uncompiled."""

logger = logging.getLogger(__name__)


def prepare_layers(model: PreTrainedModel, kernel: Kernel) -> None:
    """Set up the decoder layers of a base model, its adapter included, as the machine's settings say."""
    torch._dynamo.config.recompile_limit = COMPILED_VARIANTS
    if machine().activation_checkpointing == "on":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
        logger.info("activations are computed again in the backward pass")
    if wants_compilation(kernel):
        logger.info("layers are compiled at the first step of each length of pack")
        for layer in decoder_layers(model):
            layer.compile(dynamic=kernel == "sdpa")  # whose packs have any length


def wants_compilation(kernel: Kernel) -> bool:
    """Tell whether layers are compiled for training with an attention kernel."""
    wanted = machine().compile
    return wanted == "on" or (wanted == "auto" and kernel == "flex")


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder layers, first to last."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]
