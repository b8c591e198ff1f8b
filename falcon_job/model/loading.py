"""Load a frozen base model in a precision; refuse what would be silently wrong."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from falcon_job.errors import InputError, JobError, MachineError, first_line
from falcon_job.model.attention import choose_implementation
from falcon_job.model.compat import keep_4bit_weights, quantizable_falcon
from falcon_job.model.float8 import MULTIPLE, to_float8
from falcon_job.model.precision import compute_dtype
from falcon_job.params import Precision

logger = logging.getLogger(__name__)


def load_base(folder: Path, precision: Precision, device: torch.device) -> PreTrainedModel:
    """Load a causal language model from local safetensors, frozen, in evaluation mode, under our attention.

    Args:
        folder: config.json and *.safetensors.
        precision: how weights are held and computed; nf4 is bitsandbytes' double-quantized 4-bit, fp8 is
            `model.float8`.
        device: where the model lives.

    Raises:
        InputError: no causal language model, one that packing cannot serve, or weights that are not whole.
        MachineError: the precision does not run on the device, or the model does not fit it.
    """
    dtype = compute_dtype(precision, device)
    config = load_config(folder)
    quantized = precision == "nf4"
    model: PreTrainedModel
    try:
        with quantizable_falcon() if quantized else nullcontext():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=choose_implementation(config),
                device_map={"": device} if quantized else None,
                quantization_config=_nf4(dtype) if quantized else None,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        model, found = loaded
        if precision == "fp8":
            logger.info("fp8: %d linear layers multiply in float8", _to_float8(model, folder, device))
        if not quantized:
            model = model.to(device)  # type: ignore[arg-type]  # wrapped by transformers, which loses the types
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"{folder} in {precision} does not fit {device} ({first_line(error)}): use model.precision nf4, a smaller "
            "model or a larger GPU"
        ) from error
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: its weights cannot be loaded ({first_line(error)}): copy it again") from error
    if missing := sorted(found["missing_keys"]):  # transformers would draw them at random
        raise InputError(
            f"{folder}: {len(missing)} weights are missing ({', '.join(missing[:3])}): copy the model again, or name "
            "another model.source"
        )
    if quantized:
        count = check_quantized(model)
        keep_4bit_weights(model)
        logger.info("nf4: %d linear layers hold 4-bit weights", count)
    model.requires_grad_(requires_grad=False)
    model.train(mode=False)
    return model


def _to_float8(model: PreTrainedModel, folder: Path, device: torch.device) -> int:
    try:
        return to_float8(model, model.get_output_embeddings(), device)
    except ValueError as error:
        raise InputError(
            f"{folder}: {error}, and float8 needs multiples of {MULTIPLE}: use model.precision bf16 or nf4"
        ) from None


def load_config(folder: Path) -> PretrainedConfig:
    """Return the configuration of a model that packing can serve.

    Raises:
        InputError: it is none of a causal language model with rotary positions.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no model that transformers loads: {first_line(error)}") from None
    if getattr(config, "alibi", False):
        raise InputError(
            f"{folder}: its attention uses alibi (Falcon-RW), whose distances prefix-tree packing would change: "
            "use a rotary model such as Falcon-7B"
        )
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise InputError(
            f"{folder}: a {config.model_type} model is no causal language model: name another model.source"
        )
    return config


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return QLoRA's 4-bit format with double quantization (Dettmers et al. 2023, arXiv 2305.14314, section 3)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def check_quantized(model: PreTrainedModel) -> int:
    """Return how many linear layers hold 4-bit weights.

    Raises:
        JobError: a linear layer other than the output head does not, whatever the model says of itself.
    """
    from bitsandbytes.nn import Linear4bit

    head = model.get_output_embeddings()
    linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    left = [name for name, module in linear.items() if not isinstance(module, Linear4bit)]
    if left or not linear:
        some = ", ".join(left[:3]) or "none found"
        raise JobError(
            f"nf4: {len(left)} of {len(linear)} linear layers were not quantized ({some}): the installed transformers "
            "does not quantize this model; use model.precision bf16"
        )
    return len(linear)
