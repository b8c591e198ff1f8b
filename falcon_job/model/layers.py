"""The decoder layers of a model for training: compiled, and their activations computed again where memory is short."""

import torch
from transformers import PreTrainedModel

from falcon_job.model.engine import Engine, decoder_layers
from falcon_job.model.float8 import float8_product

COMPILED_VARIANTS = 64
"""Most variants of a layer or of FlexAttention: a few for each length of a pack (the first layer, the others,
validation). Beyond that torch would go on uncompiled."""


def prepare_layers(model: PreTrainedModel, engine: Engine) -> None:
    """Set up the decoder layers of a base model, its adapter included."""
    torch._dynamo.config.recompile_limit = COMPILED_VARIANTS
    if engine.activation_checkpointing == "on":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
    if engine.compile == "on":
        torch.compiler.allow_in_graph(float8_product)  # looked into, torch 2.11 compiles it without a gradient
        for layer in decoder_layers(model):
            layer.compile(dynamic=engine.attention == "sdpa")  # whose packs have any length
