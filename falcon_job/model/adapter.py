"""The LoRA adapter: put on a base model, saved so that equal training gives equal files, loaded again."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
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

WEIGHTS = "adapter_model.safetensors"


def add_adapter(model: PreTrainedModel, lora: LoraParams, seed: int) -> PeftModel:
    """Put a fresh float32 adapter on a frozen model; the seed is set first, so that it decides the initial weights.

    Raises:
        InputError: a name in `lora.target_modules` is no linear layer of the model, or DoRA meets float8 weights.
    """
    linear = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)}
    unknown = sorted(set(lora.target_modules) - linear)
    if unknown:
        raise InputError(
            f"lora.target_modules: {', '.join(unknown)}: no linear layer of the model, which has "
            f"{', '.join(sorted(linear))}: name one of these"
        )
    if lora.use_dora and any(isinstance(module, Float8Linear) for module in model.modules()):
        raise InputError("lora.use_dora: not on float8 weights: set it to false, or model.precision to bf16 or nf4")
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
    return _multiplying_as_the_base(get_peft_model(model, config))


class NarrowProduct(torch.nn.Linear):
    """A linear layer that keeps its weight, and adds up its gradients, in float32, and multiplies in its input's type.

    As under autocast, which would also widen the norms of the base and, with them, what 4-bit layers return.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the product, [..., in] to [..., out], in the type of the input."""
        return functional.linear(input, self.weight.to(input.dtype))


def _multiplying_as_the_base(model: PeftModel) -> PeftModel:
    """Let the adapter multiply in the type of the base; DoRA's norms of weights stay in float32."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and not model.peft_config["default"].use_dora:
            layer.cast_input_dtype_enabled = False
            for factors in (layer.lora_A, layer.lora_B):
                for name, linear in factors.items():
                    narrow = NarrowProduct(linear.in_features, linear.out_features, bias=False, device="meta")
                    narrow.weight = linear.weight
                    factors[name] = narrow
    return model


def save_adapter(model: PeftModel, folder: Path, base: ModelParams) -> None:
    """Write adapter_model.safetensors and adapter_config.json, naming the base as params.yaml does."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base.source
    config.revision = base.revision
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card; export writes a real one
    (folder / WEIGHTS).chmod(0o644)  # safetensors' 0600 would be what DVC and the export hand on
    path = folder / "adapter_config.json"
    content = read_json(path)
    # peft writes a set: the order of two or more names would differ between equal runs
    content["target_modules"] = sorted(content["target_modules"])
    write_json(path, content, sort_keys=True)


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on a base model, frozen.

    Raises:
        InputError: the folder holds no adapter, a damaged one, or one for another model.
    """
    for name in ("adapter_config.json", WEIGHTS):  # peft would look for a missing one on the Hub, or read a pickle
        if not (folder / name).is_file():
            raise InputError(f"{folder} holds no {name}: run `falcon-job run train`, or copy the adapter again, whole")
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            saved = set(file.keys())
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except torch.OutOfMemoryError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{folder} is damaged, or an adapter for another model ({first_line(error)}): run `falcon-job run train`, "
            "or copy it again"
        ) from error
    # peft leaves a layer without weights as it was initialized, and weights without a layer unread
    if other := sorted(saved ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))):
        raise InputError(
            f"{folder} is an adapter for another model ({len(other)} weights without a match, such as {other[0]}): "
            "run `falcon-job run train`, or name the adapter of this model"
        )
    return _multiplying_as_the_base(adapted).eval()
