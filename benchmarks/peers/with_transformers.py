"""transformers.Trainer with peft, used as documented: each row is padded to the longest of its batch."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)

from benchmarks.peers.mended import IMPLEMENTATION
from benchmarks.peers.task import Clock, Setting, Task, Trained


def load_model(task: Task, setting: Setting) -> Any:
    """Return the base model, with transformers' default attention or with the fixed one (`mended`)."""
    mended = {"attn_implementation": IMPLEMENTATION} if setting.attention == "mended" else {}
    dtype = "bfloat16" if task.bf16 else "float32"
    return AutoModelForCausalLM.from_pretrained(task.model, dtype=dtype, local_files_only=True, **mended)


def load_padding_tokenizer(task: Task) -> Any:
    """Return the tokenizer. If it has no padding token, use end-of-text, as is common."""
    tokenizer = AutoTokenizer.from_pretrained(task.model, local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def dataset(task: Task) -> Dataset:
    """Return the training questions as tokens and labels."""
    return Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in task.rows])


def train(task: Task, setting: Setting, folder: Path) -> Trained:
    """Train an adapter and write it to `folder`."""
    set_seed(task.params.train.seed)
    model = get_peft_model(load_model(task, setting), task.lora())
    clock = Clock(task.most_seconds)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**task.arguments(setting.rows, setting.batching)),
        train_dataset=dataset(task),
        data_collator=DataCollatorForSeq2Seq(load_padding_tokenizer(task)),
        callbacks=[clock],
    )
    trainer.train()
    model.save_pretrained(str(folder))
    return Trained(clock.seconds, task.mean_length)
