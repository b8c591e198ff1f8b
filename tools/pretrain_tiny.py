"""Pretrain falcon-tiny, a Falcon with the architecture of 7B that is small enough for Git, on our own text.

    python -m tools.pretrain_tiny FOLDER [--tokens 1600000000] [--seed 0]

Tokenizer and weights are trained from scratch, only on text that `tools.demo.pretraining_text` writes. FOLDER receives
the model in bf16, its tokenizer, and a model card with the settings and the loss curve. Use one GPU: the default takes
a quarter of an hour on an H200. Equal settings then give equal text and equal initial weights; the trained weights
differ by rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.data import IterableDataset, get_worker_info
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

import falcon_job.model.compat  # noqa: F401 - registers our attention for Falcon
from falcon_job.model.attention import IMPLEMENTATION
from tools.demo.pretraining_text import documents
from tools.train_tokenizer import train_tokenizer

VOCABULARY = 4096
TOKENIZER_DOCUMENTS = 20_000
MAX_TOKENS = 2048
DOCUMENTS_AT_A_TIME = 64


@dataclass(frozen=True)
class Settings:
    """How falcon-tiny is pretrained. On a GPU, `writers` processes write the text, each a different part of it."""

    tokens: int
    seed: int = 0
    row_length: int = 1024
    rows_per_step: int = 64
    learning_rate: float = 4e-3
    warmup_share: float = 0.02
    weight_decay: float = 0.1
    writers: int = 10

    @property
    def steps(self) -> int:
        """The number of optimizer steps."""
        return max(1, self.tokens // (self.row_length * self.rows_per_step))


class Rows(IterableDataset[dict[str, torch.Tensor]]):
    """Documents joined by end-of-text tokens and cut into rows of one length. Each worker writes its own documents."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, length: int, seed: int) -> None:
        self._tokenizer = tokenizer
        self._length = length
        self._seed = seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        written = documents(1000 * self._seed + 1 + (worker.id if worker else 0))
        tokens: list[int] = []
        while True:
            for ids in self._tokenizer(list(islice(written, DOCUMENTS_AT_A_TIME)))["input_ids"]:
                tokens += [*ids, self._tokenizer.eos_token_id]
            while len(tokens) >= self._length:
                row = torch.tensor(tokens[: self._length])
                tokens = tokens[self._length :]
                yield {"input_ids": row, "labels": row}


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> FalconForCausalLM:
    """Return an untrained Falcon in float32: multi-query and parallel attention, rotary positions, no biases."""
    set_seed(seed)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = FalconConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        num_hidden_layers=8,
        num_attention_heads=3,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        alibi=False,
        bias=False,
        max_position_embeddings=MAX_TOKENS,
        **special,
    )
    config._attn_implementation = IMPLEMENTATION
    model = FalconForCausalLM(config)
    model.generation_config = GenerationConfig(**special)
    return model


def pretrain(folder: Path, settings: Settings) -> None:
    """Write the tokenizer, the weights and the model card to `folder`."""
    tokenizer = train_tokenizer(islice(documents(settings.seed), TOKENIZER_DOCUMENTS), VOCABULARY, MAX_TOKENS)
    model = new_model(tokenizer, settings.seed)
    rows = Rows(tokenizer, settings.row_length, settings.seed)
    trainer = Trainer(model=model, args=_arguments(settings, folder), train_dataset=rows)
    trainer.train()
    model.config.use_cache = True  # Trainer turns the cache off
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card(model, settings, trainer.state.log_history), encoding="utf-8")


def _arguments(settings: Settings, folder: Path) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        seed=settings.seed,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.rows_per_step,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(settings.warmup_share * settings.steps)),
        weight_decay=settings.weight_decay,
        adam_beta2=0.95,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        torch_compile=on_gpu,
        optim="adamw_torch_fused" if on_gpu else "adamw_torch",
        dataloader_num_workers=settings.writers if on_gpu else 0,
        dataloader_prefetch_factor=8 if on_gpu else None,
        logging_steps=max(1, settings.steps // 40),
        save_strategy="no",
        report_to="none",
        accelerator_config={"dispatch_batches": False},
    )


CARD = """---
license: apache-2.0
---
# falcon-tiny

A Falcon of falcon-7b's architecture (multi-query, parallel attention, rotary positions, no biases) with {parameters:,}
parameters: {layers} layers, width {hidden}, {heads} heads, and a byte-level BPE tokenizer with {vocabulary:,} tokens,
trained on the same text. It is the base model of the demo: it knows texts about an invented world, and nothing else.

`python -m tools.pretrain_tiny` pretrained it from scratch on {tokens:,} tokens written by
`tools/demo/pretraining_text.py`: passages, lists of facts, and passages with questions in forms that the job's prompt
does not use. They are about people, places and things that the demo's questions never name. No text or weights by
others went into it.

| setting | value |
| --- | --- |
{settings}

| tokens | loss |
| --- | --- |
{losses}
"""


def card(model: FalconForCausalLM, settings: Settings, log: list[dict[str, Any]]) -> str:
    """Return the model card."""
    config, row = model.config, settings.row_length * settings.rows_per_step
    losses = [(entry["step"] * row, entry["loss"]) for entry in log if "loss" in entry]
    return CARD.format(
        parameters=model.num_parameters(),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        tokens=settings.steps * row,
        settings="\n".join(f"| {name} | {value} |" for name, value in vars(settings).items()),
        losses="\n".join(f"| {tokens:,} | {loss:.3f} |" for tokens, loss in losses),
    )


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--tokens", default=1_600_000_000)
@click.option("--seed", default=0)
def main(folder: Path, tokens: int, seed: int) -> None:
    """Pretrain a model and write it to FOLDER."""
    pretrain(folder, Settings(tokens, seed))


if __name__ == "__main__":
    main()
