"""The decoder layers of a model for training: compiled, and their activations computed again where memory is short."""

from importlib.util import find_spec

import torch
from torch import nn
from transformers import PreTrainedModel

from falcon_job.machine import machine

COMPILED_VARIANTS = 64
"""Most variants of a layer: one for each length of a pack, in training and in validation. Beyond that torch would go on
uncompiled without a word."""


def prepare_layers(model: PreTrainedModel) -> None:
    """Set up the decoder layers of a base model, its adapter included, as the machine's settings say."""
    if machine().activation_checkpointing == "on":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
    if wants_compilation(next(model.parameters()).device):
        torch._dynamo.config.recompile_limit = COMPILED_VARIANTS
        for layer in decoder_layers(model):
            layer.compile(dynamic=False)


def wants_compilation(device: torch.device) -> bool:
    """Tell whether layers are compiled for training on `device`."""
    wanted = machine().compile
    return wanted == "on" or (wanted == "auto" and device.type == "cuda" and find_spec("triton") is not None)


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder layers, first to last."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]
