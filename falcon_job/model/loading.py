"""Load a frozen base model in a precision, and refuse models that would silently give wrong results."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from falcon_job.errors import InputError, JobError, MachineError, first_line
from falcon_job.model.attention import choose_implementation
from falcon_job.model.compat import keep_4bit_weights, quantizable_falcon
from falcon_job.model.float8 import to_float8
from falcon_job.model.precision import compute_dtype
from falcon_job.params import Precision

logger = logging.getLogger(__name__)

COPY_AGAIN = "copy the model again, or set model.source to another model"


def load_base(folder: Path, precision: Precision, device: torch.device) -> PreTrainedModel:
    """Load a causal language model from local safetensors: frozen, in evaluation mode, with our attention.

    Other errors, such as CUDA's, are not caught.

    Args:
        folder: holds config.json and *.safetensors.
        precision: how weights are stored and multiplied. nf4 is bitsandbytes' double-quantized 4-bit type, fp8 is
            `model.float8`.
        device: where to put the model.

    Raises:
        InputError: the folder holds no causal language model that works with packing, or weights are damaged, missing
            or of other shapes than config.json says.
        MachineError: the device does not support the precision, or the model does not fit into its memory.
        JobError: transformers did not quantize a layer that it should have quantized.
    """
    dtype = compute_dtype(precision, device)
    config = load_config(folder)
    try:
        if precision == "nf4":
            return _freeze(_load_4bit(folder, config, dtype, device))
        model = _read_model(folder, config, dtype)
        if precision == "fp8":
            count = to_float8(model, model.get_output_embeddings(), device)
            logger.info("fp8: %d linear layers multiply in float8", count)
        return _freeze(torch.nn.Module.to(model, device))
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"in {precision} does not fit into the memory of {device} ({first_line(error)})",
            place=folder,
            fix="use a smaller model or a larger GPU" + ("" if precision == "nf4" else ", or model.precision nf4"),
        ) from error


def _freeze(model: PreTrainedModel) -> PreTrainedModel:
    model.requires_grad_(requires_grad=False)
    model.train(mode=False)
    return model


def load_config(folder: Path) -> PretrainedConfig:
    """Return the configuration of a causal language model that works with packing.

    Raises:
        InputError: transformers cannot read it, the model is not a causal language model, or it uses ALiBi.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise InputError(
            f"is not a model that transformers can load ({_in_one_line(error)})", place=folder, fix=COPY_AGAIN
        ) from None
    if getattr(config, "alibi", False):
        raise InputError(
            "holds a model with ALiBi (such as Falcon-RW), which uses distances between tokens that packing changes",
            place=folder,
            fix="use a rotary model such as Falcon-7B",
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(
            f"holds a {config.model_type} model, which is not a causal language model",
            place=folder,
            fix="set model.source to another model",
        )
    return config


def _read_model(folder: Path, config: PretrainedConfig, dtype: torch.dtype, **settings: Any) -> PreTrainedModel:
    """Return the model with its weights, on the CPU unless `settings` for transformers say otherwise.

    Raises:
        InputError: weights are damaged, missing or of other shapes, or transformers cannot build a model from `config`.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=choose_implementation(config),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the error below names them, with their shapes
            **settings,
        )
    except SafetensorError as error:
        raise InputError(f"is damaged ({first_line(error)})", place=_damaged_file(folder), fix=COPY_AGAIN) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"is damaged ({first_line(error)})", place=folder / "model.safetensors.index.json", fix=COPY_AGAIN
        ) from error
    except OSError as error:  # no safetensors file, or one that the index lists is missing
        raise InputError(
            f"has weights that cannot be read ({first_line(error)})", place=folder, fix=COPY_AGAIN
        ) from error
    except ValueError as error:
        raise InputError(
            f"describes a model that transformers cannot build ({first_line(error)})",
            place=folder / "config.json",
            fix=COPY_AGAIN,
        ) from error
    model, found = loaded
    _check_all_found(folder, found)
    result: PreTrainedModel = model
    return result


def _check_all_found(folder: Path, found: dict[str, Any]) -> None:
    """Refuse weights of other shapes and missing weights: transformers has initialized these at random."""
    _check_shapes(folder, found["mismatched_keys"])
    if missing := sorted(found["missing_keys"]):
        raise InputError(
            f"lacks {len(missing)} of the model's weights, such as {missing[0]}", place=folder, fix=COPY_AGAIN
        )


def _check_shapes(folder: Path, mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    """Refuse weights of other shapes, each given as its name, its shape in the files and its shape in the model."""
    if weights := sorted(mismatched):
        name, saved, expected = weights[0]
        raise InputError(
            f"has weights of other shapes than its config.json says ({len(weights)} in all, such as {name}: found "
            f"{list(saved)}, expected {list(expected)})",
            place=folder,
            fix="copy config.json and the weights from the same model",
        )


def _damaged_file(folder: Path) -> Path:
    """Return the first safetensors file whose header does not match its content, or the folder if there is none."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError:
            return file
    return folder


def _in_one_line(error: Exception) -> str:
    """Return an error's message as one line. The first line of a `StrictDataclassError` does not say what is wrong."""
    return first_line(error) if not isinstance(error, StrictDataclassError) else " ".join(str(error).split())


def _load_4bit(folder: Path, config: PretrainedConfig, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Return the model in QLoRA's 4-bit type, double-quantized (Dettmers et al. 2023, arXiv 2305.14314, section 3)."""
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    with quantizable_falcon():
        model = _read_model(folder, config, dtype, device_map={"": device}, quantization_config=nf4)
    layers = four_bit_layers(model)
    shapes = [
        (f"{name}.weight", tuple(layer.weight.quant_state.shape), (layer.out_features, layer.in_features))
        for name, layer in layers.items()
    ]
    # transformers does not check the shapes of weights that it quantizes
    _check_shapes(folder, (each for each in shapes if each[1] != each[2]))
    keep_4bit_weights(model)
    logger.info("nf4: %d linear layers hold 4-bit weights", len(layers))
    return model


def four_bit_layers(model: PreTrainedModel) -> dict[str, Any]:
    """Return all linear layers except the output head, by name, after checking that their weights are 4-bit.

    Raises:
        JobError: a linear layer was not quantized, even if the model claims to be loaded in 4 bits.
    """
    from bitsandbytes.nn import Linear4bit

    head = model.get_output_embeddings()
    linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    left = [name for name, module in linear.items() if not isinstance(module, Linear4bit)]
    if left or not linear:
        raise JobError(
            f"left {len(left)} of {len(linear)} linear layers unquantized ({', '.join(left[:3]) or 'none found'}), "
            "because the installed transformers does not quantize this model",
            place="model.precision nf4",
            fix="use bf16",
        )
    return linear
