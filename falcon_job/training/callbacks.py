"""Trainer callbacks: running loss, validation schedule, progress lines, and an error if the loss is not finite."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from torch import Tensor
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from falcon_job.errors import JobError
from falcon_job.training.speed import Speed, peak_memory

logger = logging.getLogger(__name__)

COLUMNS = ("step", "epoch", "train_loss", "validation_loss", "learning_rate", "grad_norm")
Row = dict[str, float | int | str]


def history(log_history: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the rows of history.csv: one per logged step, with both losses. A missing value is ""."""
    names = {"loss": "train_loss", "eval_loss": "validation_loss"}
    rows: dict[int, Row] = {}
    for entry in log_history:
        if "loss" in entry or "eval_loss" in entry:
            values = {names.get(key, key): value for key, value in entry.items()}
            row = rows.setdefault(values["step"], dict.fromkeys(COLUMNS, ""))
            row.update({column: values[column] for column in COLUMNS if column in values})
    return [rows[step] for step in sorted(rows)]


class RunningLoss(TrainerCallback, ExportableState):
    """The mean loss since the last log. Checkpoints save it; Trainer's own running loss restarts at 0 on a resume."""

    def __init__(self, total: float = 0.0, steps: int = 0) -> None:
        self.total: float | Tensor = total
        self.steps = steps

    def add(self, loss: Tensor) -> None:
        """Add the loss of one step, without synchronizing with the device."""
        self.total = self.total + loss
        self.steps += 1

    def take(self) -> float:
        """Return the mean and reset it."""
        mean = float(self.total) / max(self.steps, 1)
        self.total, self.steps = 0.0, 0
        return mean

    def state(self) -> dict[str, Any]:
        """Return what Trainer saves in checkpoints."""
        return {"args": {}, "attributes": {"total": float(self.total), "steps": self.steps}}


class Schedule(TrainerCallback):
    """Logs the last step and validates at the end of each epoch, in addition to the intervals in params.yaml."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Log the last step."""
        control.should_log |= state.global_step == state.max_steps
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Validate, unless this step has been validated already."""
        done = bool(state.log_history) and state.log_history[-1].get("step") == state.global_step
        done = done and "eval_loss" in state.log_history[-1]
        control.should_evaluate = args.eval_strategy != "no" and not done
        return control


class ProgressLine(TrainerCallback):
    """Logs a line of text for each logged step, with the speed since the previous line, and for each validation."""

    def __init__(self, speed: Speed) -> None:
        self._speed = speed

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._mark(state)

    def _mark(self, state: TrainerState) -> None:
        self._counted, self._step, self._time = replace(self._speed), state.global_step, time.perf_counter()

    def speed_since_last(self, state: TrainerState) -> str:
        """Return speed, memory and remaining time as text, measured since the last line, and restart the clock."""
        done, seconds = self._speed.since(self._counted), time.perf_counter() - self._time
        steps = max(state.global_step - self._step, 1)
        left = timedelta(seconds=round((state.max_steps - state.global_step) * seconds / steps))
        self._mark(state)
        return (
            f"{done.branches / seconds:,.0f} questions/s, {done.executed_tokens / seconds:,.0f} tokens/s, "
            f"{peak_memory() / 1e9:.1f} GB, {left} left"
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Log the loss of this step or validation.

        Raises:
            JobError: the loss is not a finite number.
        """
        logs = logs or {}
        where = f"step {state.global_step}/{state.max_steps}, epoch {state.epoch or 0:.2f}"
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise JobError(
                    f"is {logs['loss']} at step {state.global_step}",
                    place="the loss",
                    fix="lower train.learning_rate, or use model.precision bf16 instead of fp16",
                )
            values = f"loss {logs['loss']:.4f}, learning rate {logs['learning_rate']:.3g}"
            logger.info("%s: %s, %s", where, values, self.speed_since_last(state))
        elif "eval_loss" in logs:
            logger.info("%s: validation loss %.4f", where, logs["eval_loss"])
            self._mark(state)  # do not count validation as training time


class Bar(ProgressCallback):
    """Trainer's progress bar, without the dict of metrics that it prints on each log."""

    def on_log(self, *_: Any, **__: Any) -> None:
        """Print nothing, because `ProgressLine` logs the metrics."""
