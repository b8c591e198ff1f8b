"""LitGPT's LoRA recipe: padded rows, on LitGPT's own model, which expands Falcon's key head.

The recipe's script runs unchanged, except that it only trains: what it would also write and generate is left out. It
differs from the other systems: query, key and value each have their own LoRA of the same rank; it averages the means of
batches, not the losses of tokens; it does not clip gradients; and in bf16, LoRA and the optimizer are in bf16, too.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data import DataModule, get_sft_collate_fn
from litgpt.finetune import lora as recipe
from litgpt.scripts.convert_hf_checkpoint import copy_weights_falcon as to_litgpt
from litgpt.scripts.convert_lit_checkpoint import copy_weights_falcon as from_litgpt
from litgpt.scripts.merge_lora import merge_lora
from litgpt.utils import copy_config_files, save_config
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.peers.task import Clock, Setting, Task, Trained
from benchmarks.peers.with_transformers import load_padding_tokenizer


class OutOfTimeError(Exception):
    """Ends the recipe, which offers no other way to stop."""


class TimedLoader(DataLoader[Any]):
    """Tells the clock when an optimizer step has ended.

    A step has ended when the recipe asks for the first batch of the next one. That also works for the last step,
    because the recipe begins one more epoch than it trains.
    """

    clock: Clock
    accumulation: int
    taken = 0

    def __iter__(self) -> Any:
        if not self.taken:
            self.clock.start()
        for batch in super().__iter__():
            ended = self.taken and self.taken % self.accumulation == 0
            if ended and self.clock.step(self.taken / len(self)):
                raise OutOfTimeError
            self.taken += 1
            yield batch


class Questions(DataModule):  # type: ignore[misc, unused-ignore]  # typed only in the peers' environment
    """The training questions, already tokenized."""

    prompt_style = None

    def __init__(self, task: Task, rows: int, clock: Clock) -> None:
        super().__init__()
        self._accumulation = task.accumulation(rows)
        self._samples: Any = [  # a list works as a Dataset, but is not typed as one
            {
                "input_ids": torch.tensor(row.input_ids),
                "labels": torch.tensor(row.labels),
                "token_counts": {"raw": len(row.input_ids), "raw_plus_prompt_template": len(row.input_ids)},
            }
            for row in task.rows
        ]
        self._settings: dict[str, Any] = {
            "batch_size": rows,
            "collate_fn": get_sft_collate_fn(pad_id=load_padding_tokenizer(task).pad_token_id),
        }
        self._clock = clock

    def connect(self, *_: Any, **__: Any) -> None:
        """Do nothing: the data is ready."""

    def train_dataloader(self) -> TimedLoader:
        """Return the questions in random order."""
        loader = TimedLoader(self._samples, shuffle=True, **self._settings)
        loader.clock, loader.accumulation = self._clock, self._accumulation
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Return a few questions for the check that the recipe runs before training."""
        return DataLoader(self._samples[:2], **self._settings)


def train(task: Task, setting: Setting, folder: Path) -> Trained:
    """Train, and write the merged model to `folder` if it is to be scored."""
    checkpoint, output = task.workspace.scratch / "litgpt", task.workspace.scratch / "peer"
    precision = "bf16-true" if task.bf16 else "32-true"
    if not checkpoint.exists():
        _convert(task, checkpoint)
    for beside in ("generate_example", "save_hyperparameters", "save_prompt_style", "merge_lora"):
        setattr(recipe, beside, lambda *_, **__: None)
    clock = Clock(task.most_seconds)
    hyperparameters = _hyperparameters(task)
    with suppress(OutOfTimeError):
        recipe.setup(
            checkpoint,
            output,
            precision=precision,
            **hyperparameters,
            data=Questions(task, setting.rows, clock),
            train=_arguments(task, setting.rows),
            eval=EvalArgs(interval=10**9, max_new_tokens=1, final_validation=False),
            optimizer=_optimizer(task),
            seed=task.params.train.seed,
        )
    if task.score:
        final = output / "final"
        record = {**hyperparameters, "checkpoint_dir": str(checkpoint), "precision": precision}
        (final / "hyperparameters.yaml").write_text(yaml.safe_dump(record), encoding="utf-8")
        merge_lora(final, checkpoint)
        _convert_back(task, final, folder)
    return Trained(clock.seconds, task.mean_length)


def _hyperparameters(task: Task) -> dict[str, Any]:
    lora = task.params.lora
    if lora.target_modules != ["query_key_value"]:
        raise SystemExit("the comparison with LitGPT needs lora.target_modules [query_key_value]")
    return {
        "lora_r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "lora_query": True,
        "lora_key": True,
        "lora_value": True,
    }


def _optimizer(task: Task) -> dict[str, Any]:
    train = task.params.train
    arguments = {
        "lr": train.learning_rate,
        "weight_decay": train.weight_decay,
        "fused": train.optimizer == "adamw_torch_fused",
    }
    return {"class_path": "torch.optim.AdamW", "init_args": arguments}


def _arguments(task: Task, rows: int) -> TrainArgs:
    arguments = task.arguments(rows)
    return TrainArgs(
        save_interval=None,
        log_interval=arguments["logging_steps"] * task.accumulation(rows),
        global_batch_size=rows * task.accumulation(rows),
        micro_batch_size=rows,
        lr_warmup_steps=arguments["warmup_steps"],
        epochs=task.epochs,
    )


def _config(task: Task) -> Config:
    shape = AutoConfig.from_pretrained(task.model, local_files_only=True)
    return Config.from_name(
        "falcon-7b",
        block_size=2048,
        vocab_size=shape.vocab_size,
        padded_vocab_size=shape.vocab_size,
        n_layer=shape.num_hidden_layers,
        n_head=shape.num_attention_heads,
        n_embd=shape.hidden_size,
        intermediate_size=shape.ffn_hidden_size,
    )


def _convert(task: Task, checkpoint: Path) -> None:
    """Write the base model in LitGPT's format."""
    checkpoint.mkdir(parents=True)
    copy_config_files(task.model, checkpoint)
    config = _config(task)
    save_config(config, checkpoint)
    dtype = torch.bfloat16 if task.bf16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(task.model, dtype=dtype, local_files_only=True)
    weights: dict[str, Any] = {}
    to_litgpt(config, weights, model.state_dict())
    torch.save(weights, checkpoint / "lit_model.pth")


def _convert_back(task: Task, checkpoint: Path, folder: Path) -> None:
    """Write a merged LitGPT model in the format of transformers."""
    weights: dict[str, Any] = {}
    from_litgpt(_config(task), weights, torch.load(checkpoint / "lit_model.pth"))
    model = AutoModelForCausalLM.from_pretrained(task.model, dtype="float32", local_files_only=True)
    model.load_state_dict(weights)
    model.save_pretrained(folder)
