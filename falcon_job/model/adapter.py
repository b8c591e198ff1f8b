"""Add, save and load the LoRA adapter. Equal training runs save equal files."""

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
OBTAIN_OTHER = "run `falcon-job run train`, or choose an adapter that was trained on this model"


def add_adapter(model: PreTrainedModel, lora: LoraParams, seed: int) -> PeftModel:
    """Add a fresh float32 adapter to a frozen model. `seed` seeds all random generators and so the initial weights.

    Raises:
        InputError: a name in `lora.target_modules` is not a linear layer of the model, or DoRA is used with fp8.
    """
    linear = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)}
    if unknown := sorted(set(lora.target_modules) - linear):
        raise InputError(
            f"names {', '.join(unknown)}, but the model has no such linear layers",
            place="lora.target_modules",
            fix=f"choose from {', '.join(sorted(linear))}",
        )
    if lora.use_dora and any(isinstance(module, Float8Linear) for module in model.modules()):
        raise InputError(
            "does not work with float8 weights",
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
    """A linear layer that multiplies in the dtype of its input. Its weight and the weight's gradient are float32.

    Autocast would do the same. But it would also make the norms of the base return float32, which changes the outputs
    of 4-bit layers.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the product in the dtype of the input: [..., out_features] for [..., in_features]."""
        return functional.linear(input, self.weight.to(input.dtype))


def _multiply_in_base_dtype(model: PeftModel) -> PeftModel:
    """Make the adapter multiply in the dtype of the base. DoRA computes norms of its weights and stays in float32."""
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
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes mode 0600, which DVC and the export would copy
    path = folder / CONFIG
    content = read_json(path)
    # peft writes a set, so the order of names would differ between equal runs
    content["target_modules"] = sorted(content["target_modules"])
    write_json(path, content, sort_keys=True)


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Load a saved adapter into a base model and return it frozen, in evaluation mode.

    Raises:
        InputError: the folder lacks a file of the adapter, a file is damaged, or the adapter is for another model.
    """
    for name in (CONFIG, WEIGHTS):  # peft would look for a missing file on the Hub, or load a pickle
        if not (folder / name).is_file():
            raise InputError(f"has no {name}", place=folder, fix=OBTAIN_AGAIN)
    config, saved = _read_config(folder / CONFIG), _read_shapes(folder / WEIGHTS)
    try:
        # peft at most warns of weights that do not match, so all shapes are compared below
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
            f"is an adapter for another model (mismatched weights: {len(other)}, such as {first}: "
            f"found {saved.get(first, 'none')}, expected {expected.get(first, 'none')})",
            place=folder,
            fix=OBTAIN_OTHER,
        )
    return _multiply_in_base_dtype(adapted).eval()


def _read_config(path: Path) -> LoraConfig:
    try:
        config = PeftConfig.from_pretrained(str(path.parent))
    except (KeyError, TypeError, ValueError) as error:  # broken JSON, or a value that peft does not accept
        raise InputError(
            f"is damaged, or was not written by peft ({first_line(error)})", place=path, fix=OBTAIN_AGAIN
        ) from error
    if not isinstance(config, LoraConfig):
        raise InputError("does not describe a LoRA adapter", place=path, fix=OBTAIN_AGAIN)
    return config


def _read_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shape of each weight in a safetensors file, reading only its header."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"is damaged ({first_line(error)})", place=path, fix=OBTAIN_AGAIN) from error
