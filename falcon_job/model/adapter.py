"""The LoRA adapter: added to a base model, saved so that equal training gives equal files, and loaded again."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from falcon_job.errors import InputError, first_line
from falcon_job.files import read_json, write_json
from falcon_job.model.float8 import Float8Linear
from falcon_job.params import LoraParams, ModelParams

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
OBTAIN_AGAIN = "run `falcon-job run train`, or copy the adapter again"
OBTAIN_OTHER = "run `falcon-job run train`, or name the adapter of this model"


def add_adapter(model: PreTrainedModel, lora: LoraParams, seed: int) -> PeftModel:
    """Add a fresh float32 adapter to a frozen model. The seed is set first, and so decides the initial weights.

    Raises:
        InputError: a name in `lora.target_modules` is not a linear layer of the model, or DoRA meets float8 weights.
    """
    linear = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)}
    if unknown := sorted(set(lora.target_modules) - linear):
        raise InputError(
            f"names {', '.join(unknown)}, which the model does not have as linear layers",
            place="lora.target_modules",
            fix=f"choose from {', '.join(sorted(linear))}",
        )
    if lora.use_dora and any(isinstance(module, Float8Linear) for module in model.modules()):
        raise InputError(
            "does not work on float8 weights",
            place="lora.use_dora",
            fix="set it to false, or set model.precision to bf16 or nf4",
        )
    set_seed(seed)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted(lora.target_modules),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return _multiply_in_base_dtype(get_peft_model(model, config))


class InputDtypeLinear(torch.nn.Linear):
    """A linear layer with a float32 weight, whose gradients are float32 too, that multiplies in the type of its input.

    Autocast would do the same, but also make the base's norms return float32 and so change what 4-bit layers return.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the product in the type of the input: [..., out_features] for [..., in_features]."""
        return functional.linear(input, self.weight.to(input.dtype))


def _multiply_in_base_dtype(model: PeftModel) -> PeftModel:
    """Let the adapter multiply in the type of the base. DoRA needs norms of its weights and stays in float32."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and not model.peft_config["default"].use_dora:
            layer.cast_input_dtype_enabled = False
            for factors in (layer.lora_A, layer.lora_B):
                for name, linear in factors.items():
                    replacement = InputDtypeLinear(linear.in_features, linear.out_features, bias=False, device="meta")
                    replacement.weight = linear.weight
                    factors[name] = replacement
    return model


def save_adapter(model: PeftModel, folder: Path, base: ModelParams) -> None:
    """Write adapter_model.safetensors and adapter_config.json, which names the base as params.yaml does."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base.source
    config.revision = base.revision
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card; export writes a real one
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes 0600, which DVC and the export would hand on
    path = folder / CONFIG
    content = read_json(path)
    # peft writes a set: the order of two or more names would differ between equal runs
    content["target_modules"] = sorted(content["target_modules"])
    write_json(path, content, sort_keys=True)


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on a base model, frozen, in evaluation mode.

    Raises:
        InputError: the folder lacks a file of the adapter, a file is damaged, or the adapter is for another model.
    """
    for name in (CONFIG, WEIGHTS):  # peft would look for a missing one on the Hub, or read a pickle
        if not (folder / name).is_file():
            raise InputError(f"has no {name}", place=folder, fix=OBTAIN_AGAIN)
    config, saved = _read_config(folder / CONFIG), _read_shapes(folder / WEIGHTS)
    try:
        # peft leaves weights that do not match as they were initialized, and says nothing: they are compared below
        adapted = PeftModel.from_pretrained(model, str(folder), config=config, ignore_mismatched_sizes=True)
    except ValueError as error:
        raise InputError(
            f"is not an adapter for this model ({first_line(error)})", place=folder, fix=OBTAIN_OTHER
        ) from error
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    expected = {name: list(weight.shape) for name, weight in state.items()}
    if other := sorted(name for name in saved.keys() | expected.keys() if saved.get(name) != expected.get(name)):
        first = other[0]
        raise InputError(
            f"is an adapter for another model ({len(other)} weights differ, such as {first}: "
            f"{saved.get(first, 'missing')}, not {expected.get(first, 'wanted')})",
            place=folder,
            fix=OBTAIN_OTHER,
        )
    return _multiply_in_base_dtype(adapted).eval()


def _read_config(path: Path) -> LoraConfig:
    try:
        config = PeftConfig.from_pretrained(str(path.parent))
    except (KeyError, TypeError, ValueError) as error:  # JSON, or a value in it, that peft does not understand
        raise InputError(f"is damaged, or not peft's ({first_line(error)})", place=path, fix=OBTAIN_AGAIN) from error
    if not isinstance(config, LoraConfig):
        raise InputError("does not describe a LoRA adapter", place=path, fix=OBTAIN_AGAIN)
    return config


def _read_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shape of each weight in a safetensors file; only its header is read."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"is damaged ({first_line(error)})", place=path, fix=OBTAIN_AGAIN) from error
