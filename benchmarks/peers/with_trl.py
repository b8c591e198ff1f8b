"""TRL's SFTTrainer: padded in random order, padded by length, or packed."""

from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from benchmarks.peers.task import Clock, Setting, Task, Trained, packing_difference
from benchmarks.peers.with_transformers import dataset, load_model, load_padding_tokenizer


def train(task: Task, setting: Setting, folder: Path) -> Trained:
    """Train an adapter and write it to `folder`."""
    set_seed(task.params.train.seed)
    clock = Clock(task.most_seconds)
    trainer = SFTTrainer(
        model=load_model(task, setting),
        args=SFTConfig(**_arguments(task, setting)),
        train_dataset=dataset(task),
        processing_class=load_padding_tokenizer(task),
        peft_config=task.lora(),
        callbacks=[clock],
    )
    difference = _difference(trainer, task) if setting.batching == "packed" else None
    trainer.train()
    trainer.save_model(str(folder))
    return Trained(clock.seconds, task.mean_length, difference)


def _arguments(task: Task, setting: Setting) -> dict[str, Any]:
    rows = 1 if setting.batching == "packed" else setting.rows
    return {
        **task.arguments(rows, setting.batching),
        "gradient_accumulation_steps": task.accumulation(setting.rows),
        "max_length": task.pack_length(setting.rows) if setting.batching == "packed" else None,
        "packing": setting.batching == "packed",
        **({"gradient_checkpointing": False} if setting.attention == "mended" else {}),
    }


def _difference(trainer: SFTTrainer, task: Task) -> float:
    """Return how much packing changes the gradients, for the first pack with several sequences."""
    batches = (trainer.data_collator([row]) for row in trainer.train_dataset)
    batch = next(batch for batch in batches if (batch["position_ids"] == 0).sum() > 1)
    packed = {name: batch[name].to(task.device) for name in ("input_ids", "position_ids", "labels")}
    model = trainer.model.to(task.device).train()
    difference = packing_difference(model, packed, task.bf16)
    if task.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return difference
