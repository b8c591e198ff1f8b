"""The LoRA adapter: put on a base model, saved so that equal training gives equal files, loaded again."""

import json
import re
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, set_seed

from falcon_job.errors import InputError
from falcon_job.params import LoraParams, ModelParams


def add_adapter(model: PreTrainedModel, lora: LoraParams, seed: int) -> PeftModel:
    """Put a fresh float32 adapter on a frozen model; the seed is set first, so that it decides the initial weights.

    Raises:
        InputError: a name in `lora.target_modules` fits no layer.
    """
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    unknown = sorted(set(lora.target_modules) - names)
    if unknown:
        linear = sorted({name for name in names if re.search("proj|dense|query|fc|linear", name)})
        raise InputError(f"lora.target_modules: {', '.join(unknown)} not in the model, which has {', '.join(linear)}")
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
    return get_peft_model(model, config)


def save_adapter(model: PeftModel, folder: Path, base: ModelParams) -> None:
    """Write adapter_model.safetensors and adapter_config.json, naming the base as params.yaml does."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base.source
    config.revision = base.revision
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card; export writes a real one
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    # peft writes a set: the order of two or more names would differ between equal runs
    content["target_modules"] = sorted(content["target_modules"])
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on a base model, frozen.

    Raises:
        InputError: the folder holds no adapter.
    """
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder} holds no adapter: run `falcon-job run train`")
    return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()
