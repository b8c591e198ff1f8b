"""A transformers.Trainer with our loss and steps. An item of its DataLoader holds all packs of an optimizer step."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from falcon_job.errors import InputError
from falcon_job.machine import Machine
from falcon_job.model.precision import choose_device, compute_dtype
from falcon_job.packing import completion_loss
from falcon_job.params import Params
from falcon_job.training.callbacks import Bar, ProgressLine, RunningLoss, Schedule
from falcon_job.training.speed import Speed
from falcon_job.training.steps import Step, StepDataset


class PackedTrainer(Trainer):
    """Trains on packs. The loss of a step is the mean over its completion tokens, however many packs hold them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.speed = Speed()

    @property
    def running_loss(self) -> RunningLoss:
        """The loss since the last log, looked up at each use, because Trainer replaces the callback on a resume."""
        return next(cb for cb in self.callback_handler.callbacks if isinstance(cb, RunningLoss))

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Accumulate the gradients of all packs of a step. Return the loss of the step, a scalar on the device."""
        model.train()
        completion_tokens = inputs["completion_tokens"]
        total = torch.zeros((), device=self.args.device)
        for pack in inputs["packs"]:
            with self.compute_loss_context_manager():
                loss = completion_loss(model, pack) / completion_tokens
            self.accelerator.backward(loss)
            total += loss.detach()
        self.running_loss.add(total)
        executed = sum(map(len, inputs["packs"]))
        self.speed.add(inputs["branches"], inputs["logical_tokens"], executed, completion_tokens)
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss of all steps since the last log, including those before a resume."""
        if "loss" in logs:
            logs["loss"] = self.running_loss.take()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Return and log the mean loss over all completion tokens of the validation split."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        total, completion_tokens = 0.0, 0
        with torch.no_grad():
            for step in self.get_eval_dataloader(eval_dataset):
                total += sum(float(completion_loss(model, pack)) for pack in step["packs"])
                completion_tokens += step["completion_tokens"]
        model.train(was_training)
        metrics = {f"{metric_key_prefix}_loss": total / completion_tokens}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0, because Trainer's estimate assumes rows of one length."""
        return 0


def build_trainer(
    model: PeftModel,
    params: Params,
    machine: Machine,
    train: StepDataset,
    validation: StepDataset | None,
    folder: Path,
) -> PackedTrainer:
    """Return a trainer that writes one checkpoint per epoch to `folder`.

    Raises:
        InputError: a tracker in `train.report_to` is unknown or not installed.
    """
    _check_trackers(params.train.report_to)
    arguments = training_arguments(params, machine, len(train), validation is not None, folder)
    trainer = PackedTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=_single,
        callbacks=[RunningLoss(), Schedule()],
    )
    trainer.add_callback(ProgressLine(trainer.speed))
    trainer.remove_callback(PrinterCallback)
    if not arguments.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(Bar())
    return trainer


def _check_trackers(names: Sequence[str]) -> None:
    known = set(INTEGRATION_TO_CALLBACK) - {"dvclive"}
    if unknown := sorted(set(names) - known):
        raise InputError(
            f"names {', '.join(unknown)}, which cannot be used (dvclive would rewrite dvc.yaml while DVC runs it; "
            "reports/history.csv holds the same numbers)",
            place="train.report_to",
            fix=f"choose from {', '.join(sorted(known))}",
        )
    if missing := sorted(set(names) - set(get_available_reporting_integrations())):
        raise InputError(
            f"names {', '.join(missing)}, which is not installed",
            place="train.report_to",
            fix="install it with `.venv/bin/pip install`",
        )


def _single(items: list[Step]) -> Step:
    """Collate a batch of one item: return the item."""
    (step,) = items
    return step


def training_arguments(
    params: Params, machine: Machine, steps_per_epoch: int, validate: bool, folder: Path
) -> TrainingArguments:
    """Return our params as transformers.TrainingArguments."""
    train = params.train
    device = choose_device(machine)
    on_gpu = device.type == "cuda"
    workers = machine.workers
    arguments = TrainingArguments(
        output_dir=str(folder),
        seed=train.seed,
        num_train_epochs=train.epochs,
        train_sampling_strategy="sequential",  # StepDataset shuffles
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.scheduler,
        warmup_steps=math.ceil(train.warmup_ratio * steps_per_epoch * train.epochs),
        optim=train.optimizer,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        logging_steps=train.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy=("steps" if train.eval_steps else "epoch") if validate else "no",
        eval_steps=train.eval_steps,
        save_strategy="epoch",
        save_total_limit=train.save_total_limit,
        restore_callback_states_from_checkpoint=True,
        report_to=train.report_to or "none",
        fp16=compute_dtype(params.model.precision, device) == torch.float16,
        accelerator_config={"non_blocking": on_gpu},
        use_cpu=not on_gpu,
        dataloader_num_workers=(2 if on_gpu else 0) if workers == "auto" else workers,
        remove_unused_columns=False,
        disable_tqdm=not sys.stderr.isatty(),
        log_level="error",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else Trainer would split the row of a step over all GPUs
    return arguments
