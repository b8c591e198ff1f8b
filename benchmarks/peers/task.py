"""What every system is given, and how its epochs are timed."""

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
        system: who trains.
        batching: how questions make a batch: passages shared, packed side by side, padded in random order, or padded
            beside others of about their length.
        attention: the system's own, with its own choice of activation checkpointing; or, of Falcon in transformers,
            one by a fused kernel that keeps packed sequences apart, without activation checkpointing.
        rows: sequences of a batch; the tokens of a pack are those of so many on average. 0: as falcon_job chooses.
    """

    system: System
    batching: Batching
    attention: Attention
    rows: int = 0


@dataclass(frozen=True)
class Row:
    """A question as an ordinary sequence: tokens, and labels that are -100 but at the answer."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Trained:
    """What was measured of a setting.

    Attributes:
        seconds: of its epochs, as `Clock` has them.
        tokens_per_question: computed for a question, padding aside.
        packing_difference: what its packing changes, as `packing_difference` says; None where nothing is packed.
    """

    seconds: list[float]
    tokens_per_question: float
    packing_difference: float | None = None


class Task:
    """The same questions, weights and hyperparameters for every system.

    Attributes:
        workspace: preprocessed; what a system trained is written into its build folder.
        params: of the job.
        model: the folder of the base.
        epochs: the first warms up, the fastest of the others is reported.
        most_seconds: after which an epoch of a peer is cut short, and the second of these ends training; None: never.
        score: whether what was trained is to answer dev.
        rows: the training questions.
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
        """Whether the base is in bf16; else it is in float32."""
        return self.params.model.precision == "bf16"

    @property
    def mean_length(self) -> float:
        """Tokens of a question as a sequence of its own."""
        return sum(len(row.input_ids) for row in self.rows) / len(self.rows)

    def accumulation(self, rows: int) -> int:
        """Return the batches of an optimizer step."""
        return self.params.train.questions_per_step // rows

    def pack_length(self, rows: int) -> int:
        """Return the tokens of a pack that holds as many as `rows` sequences do on average."""
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
        """Return arguments of transformers.Trainer for batches of `rows`."""
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
    """Times a training run by epochs, the first of which warms up.

    Attributes:
        seconds: of each epoch; of one that was cut short, what the whole would have taken.
    """

    def __init__(self, most_seconds: float | None = None) -> None:
        """Take the seconds after which an epoch is cut short, behind an optimizer step; None: never."""
        self.seconds: list[float] = []
        self._most_seconds = math.inf if most_seconds is None else most_seconds
        self._begun = 0.0
        self._started = 0.0

    def start(self) -> None:
        """Training begins."""
        self._started = self._now()

    def step(self, epochs: float) -> bool:
        """An optimizer step has ended; return whether that is enough: the second epoch was cut short.

        Args:
            epochs: trained so far.
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
        """As transformers.Trainer calls it."""
        self.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """As transformers.Trainer calls it."""
        control.should_training_stop |= self.step(state.epoch)

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def packing_difference(model: torch.nn.Module, packed: dict[str, torch.Tensor], bf16: bool) -> float:
    """Return |g - h| / |h| of all LoRA gradients: g of a pack as the system makes it, h of its sequences one by one.

    Args:
        model: in the mode that trains.
        packed: input_ids, position_ids and labels, int64 [1, N]; a sequence begins wherever a position is 0.
        bf16: whether training is under autocast to bf16.
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
