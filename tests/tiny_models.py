"""Tiny models with random weights, one for each attention that the job serves or refuses."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import FalconConfig, FalconForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

import falcon_job.model.compat  # noqa: F401 - gives Falcon our attention
from falcon_job.model.attention import IMPLEMENTATION

VOCABULARY = 97


def falcon_7b_type(seed: int = 0, **changes: object) -> FalconForCausalLM:
    """One key/value head, parallel attention, rotary: as Falcon-7B."""
    return _falcon(seed, {"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False, **changes})


def falcon_40b_type(seed: int = 0, **changes: object) -> FalconForCausalLM:
    """Grouped key/value heads and two layer norms: as Falcon-40B."""
    return _falcon(seed, {"new_decoder_architecture": True, "num_kv_heads": 2, **changes})


def llama_type(seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """Grouped key/value heads, RMSNorm in float32: as SmolLM2 and Falcon3."""
    torch.manual_seed(seed)
    settings: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attn_implementation": IMPLEMENTATION,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))


def _falcon(seed: int, changes: dict[str, object]) -> FalconForCausalLM:
    torch.manual_seed(seed)
    settings: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "alibi": False,
        "bias": False,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "initializer_range": 0.2,
        "attn_implementation": IMPLEMENTATION,
    }
    return FalconForCausalLM(FalconConfig(**{**settings, **changes}))


def with_lora(model: PreTrainedModel, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> PeftModel:
    """Put a LoRA with random weights, B too, on the attention's input projections."""
    is_falcon = isinstance(model, FalconForCausalLM)
    targets = ["query_key_value"] if is_falcon else ["q_proj", "k_proj", "v_proj"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, lora_dropout=dropout, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted.to(dtype)
