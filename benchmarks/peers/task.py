"""What every system receives, and how its epochs are timed."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig
from torch.nn import functional
from transformers import TrainerCallback

from falcon_job.machine import Machine
from falcon_job.model.precision import choose_device
from falcon_job.params import Params
from falcon_job.tokens.dataset import Split
from falcon_job.workspace import Workspace

System = Literal["falcon_job", "transformers", "trl", "litgpt"]
Batching = Literal["tree", "packed", "padded", "grouped"]
Attention = Literal["own", "mended"]


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
        system: the trainer.
        batching: how questions form a batch: `tree` shares passages, `packed` puts sequences side by side in one row,
            `padded` pads them in random order, and `grouped` pads sequences of about the same length.
        attention: `own` is the system's attention and its own choice of activation checkpointing. `mended` is for
            Falcon in transformers: a fused kernel that keeps packed sequences apart, without activation checkpointing.
        rows: sequences per batch. A pack has as many tokens as this number of sequences has on average. 0 leaves the
            choice to falcon_job.
    """

    system: System
    batching: Batching
    attention: Attention
    rows: int = 0


@dataclass(frozen=True)
class Row:
    """A question as an ordinary sequence: its tokens, and labels that are -100 except for the answer."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Trained:
    """The measurements of a setting.

    Attributes:
        seconds: of each epoch, from `Clock`.
        tokens_per_question: computed tokens per question, without padding.
        packing_difference: the result of the function `packing_difference`; None if nothing is packed.
    """

    seconds: list[float]
    tokens_per_question: float
    packing_difference: float | None = None


class Task:
    """The same questions, weights and hyperparameters for every system.

    Attributes:
        workspace: a preprocessed workspace; systems write their trained models to its build folder.
        params: the job's params.
        model: the folder of the base model.
        epochs: how many to train. The first is a warm-up; the fastest of the others is reported.
        most_seconds: cut a peer's epoch short after this time, and stop training at the second cut; None: never.
        score: whether the trained model answers dev.
        split: the training split.
        rows: the training questions as ordinary sequences.
        device: where to train.
    """

    def __init__(
        self,
        workspace: Workspace,
        params: Params,
        model: Path,
        epochs: int,
        most_seconds: float | None = None,
        score: bool = False,
    ) -> None:
        self.workspace = workspace
        self.params = params
        self.model = model
        self.epochs = epochs
        self.most_seconds = most_seconds
        self.score = score
        self.split = Split(workspace.dataset / "train.arrow")
        self.rows = list(_rows(self.split))
        self.device = choose_device(Machine())

    @property
    def bf16(self) -> bool:
        """Whether the base model is in bf16; otherwise it is in float32."""
        return self.params.model.precision == "bf16"

    @property
    def mean_length(self) -> float:
        """The mean number of tokens of a question as an ordinary sequence."""
        return sum(len(row.input_ids) for row in self.rows) / len(self.rows)

    def accumulation(self, rows: int) -> int:
        """Return the number of batches per optimizer step."""
        return self.params.train.questions_per_step // rows

    def pack_length(self, rows: int) -> int:
        """Return the length of a pack: as many tokens as `rows` sequences have on average."""
        return max(round(rows * self.mean_length), *(len(row.input_ids) for row in self.rows))

    def lora(self) -> LoraConfig:
        """Return the adapter's configuration."""
        lora = self.params.lora
        return LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            bias="none",
            task_type="CAUSAL_LM",
        )

    def arguments(self, rows: int, batching: Batching = "padded") -> dict[str, Any]:
        """Return the arguments of transformers.Trainer for batches of `rows` sequences."""
        workers = 0 if self.device.type == "cpu" else 2
        train = self.params.train
        steps = math.ceil(len(self.rows) / train.questions_per_step) * self.epochs
        return {
            "output_dir": str(self.workspace.scratch / "peer"),
            "seed": train.seed,
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": self.accumulation(rows),
            "learning_rate": train.learning_rate,
            "lr_scheduler_type": train.scheduler,
            "warmup_steps": math.ceil(train.warmup_ratio * steps),
            "optim": train.optimizer,
            "weight_decay": train.weight_decay,
            "max_grad_norm": train.max_grad_norm,
            "logging_steps": train.logging_steps,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "bf16": self.bf16,
            "use_cpu": self.device.type == "cpu",
            "dataloader_num_workers": workers,
            "dataloader_persistent_workers": workers > 0,
            "train_sampling_strategy": "group_by_length" if batching == "grouped" else "random",
        }


def _rows(split: Split) -> Iterator[Row]:
    for passage in split:
        for question in passage.questions:
            read = [*passage.prefix_ids, *question.prompt_ids]
            answer = list(question.answer_ids)
            yield Row([*read, *answer], [*[-100] * len(read), *answer])


class Clock(TrainerCallback):
    """Times each epoch of a training run; the first one is a warm-up.

    Attributes:
        seconds: of each epoch. An epoch that was cut short counts with the time that all of it would have taken.
    """

    def __init__(self, most_seconds: float | None = None) -> None:
        """Cut epochs short after `most_seconds`, at the end of an optimizer step; None: never."""
        self.seconds: list[float] = []
        self._most_seconds = math.inf if most_seconds is None else most_seconds
        self._begun = 0.0
        self._started = 0.0

    def start(self) -> None:
        """Start timing; call this when training begins."""
        self._started = self._now()

    def step(self, epochs: float) -> bool:
        """Record that an optimizer step has ended; return whether to stop, because a second epoch was cut short.

        Args:
            epochs: how many epochs are trained so far, with the fraction of the current one.
        """
        share = epochs - self._begun
        whole = share > 1 - 1e-6
        if not whole and time.perf_counter() - self._started < self._most_seconds:
            return False
        now = self._now()
        self.seconds.append((now - self._started) / share)
        self._begun, self._started = epochs, now
        return not whole and len(self.seconds) > 1

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers.Trainer."""
        self.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by transformers.Trainer."""
        control.should_training_stop |= self.step(state.epoch)

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def packing_difference(model: torch.nn.Module, packed: dict[str, torch.Tensor], bf16: bool) -> float:
    """Return |g - h| / |h| over all LoRA gradients: g from one of the system's packs, h from its separate sequences.

    Args:
        model: a model in training mode.
        packed: input_ids, position_ids and labels, int64 [1, N]; a sequence begins wherever a position is 0.
        bf16: whether training uses autocast to bf16.
    """
    starts = (packed["position_ids"][0] == 0).nonzero().flatten().tolist()
    stops = [*starts[1:], packed["input_ids"].shape[1]]
    together = _gradients(model, [packed], bf16)
    alone = _gradients(
        model,
        [
            {name: tensor[:, start:stop] for name, tensor in packed.items()}
            for start, stop in zip(starts, stops, strict=True)
        ],
        bf16,
    )
    return float((together - alone).norm() / alone.norm())


def _gradients(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]], bf16: bool) -> torch.Tensor:
    model.zero_grad()
    for batch in batches:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        with torch.autocast(batch["labels"].device.type, torch.bfloat16, enabled=bf16):
            logits = model(**inputs, use_cache=False).logits
        loss = functional.cross_entropy(logits[0, :-1].float(), batch["labels"][0, 1:], reduction="sum")
        loss.backward()
    found = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found
