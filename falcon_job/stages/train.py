"""`falcon-job train`: fine-tune a LoRA adapter on packed questions.

Reads build/dataset and build/base.json; writes build/adapter, reports/history.csv and reports/train.json. Checkpoints
are kept under scratch/ while it runs, and a killed run resumes from the last one.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from peft import PeftModel
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import set_seed

from falcon_job.files import new_folder, write_csv, write_json
from falcon_job.machine import Machine
from falcon_job.model.adapter import save_adapter
from falcon_job.model.compute import FULL_PACK, load_for_training, prepare_layers
from falcon_job.model.precision import PRECISIONS
from falcon_job.packing import Packer, Tree
from falcon_job.params import Params
from falcon_job.sources.base_model import locate
from falcon_job.tokens.dataset import Split
from falcon_job.training.callbacks import COLUMNS, history
from falcon_job.training.checkpoints import delete_checkpoints, fingerprint, last_checkpoint, resume_settings
from falcon_job.training.divergence import check_divergence
from falcon_job.training.self_check import check_packing
from falcon_job.training.steps import StepDataset
from falcon_job.training.trainer import PackedTrainer, build_trainer
from falcon_job.workspace import Workspace

logger = logging.getLogger(__name__)


def train(params: Params, machine: Machine, workspace: Workspace) -> None:
    """Train the adapter and report losses and speed.

    Raises:
        JobError: packs and separate sequences give different gradients on this model, quantized weights diverge too far
            from bf16, or the loss is not finite.
        MachineError: a setting does not work on this machine.
        InputError: the model cannot be loaded, or does not work with packing.
    """
    weights = locate(workspace)
    folder = workspace.checkpoints / fingerprint(workspace, "train")
    model, chosen = load_for_training(weights, params, machine)
    compute = resume_settings(folder, chosen, machine)
    logger.info("%s", compute)
    packer = compute.packer()
    split = Split(workspace.dataset / "train.arrow")
    steps = StepDataset(split, params.train.questions_per_step, packer, params.train.seed)
    validation = _validation_steps(workspace.dataset / "validation.arrow", params, packer)

    divergence = _divergence(model, weights, params, steps.trees(0))
    prepare_layers(model.get_base_model(), compute)
    difference = check_packing(model, steps.trees(0), params.model.precision, packer)
    logger.info("self-check: packs match separate sequences (%s)", difference)

    trainer = build_trainer(model, params, machine, steps, validation, folder)
    seconds = _fit(trainer, last_checkpoint(folder))

    with new_folder(workspace.adapter) as adapter:
        save_adapter(model, adapter, params.model)
    write_csv(workspace.reports / "history.csv", COLUMNS, history(trainer.state.log_history))
    report = {**_report(trainer, split, seconds), **divergence, "compute": asdict(compute)}
    write_json(workspace.reports / "train.json", report)
    delete_checkpoints(folder)


def _fit(trainer: PackedTrainer, checkpoint: Path | None) -> float:
    """Train, resuming from a checkpoint if there is one, and return the seconds that this took."""
    if checkpoint:
        logger.info("resuming from %s", checkpoint)
    set_seed(trainer.args.seed)
    started = time.perf_counter()
    with logging_redirect_tqdm([logging.getLogger("falcon_job")]):  # log lines go above the progress bar
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return time.perf_counter() - started


def _divergence(model: PeftModel, weights: Path, params: Params, trees: Sequence[Tree]) -> dict[str, dict[str, float]]:
    """Return how far quantized weights diverge from bf16 on the first pack; {} if the weights are not quantized."""
    if not PRECISIONS[params.model.precision].quantized:
        return {}
    (first, *_) = Packer.dense(max(params.preprocess.max_tokens, FULL_PACK["sdpa"])).make_packs(trees)
    return {"divergence": check_divergence(model, weights, first, params.model.precision)}


def _validation_steps(path: Path, params: Params, packer: Packer) -> StepDataset | None:
    split = Split(path)
    return StepDataset(split, params.train.questions_per_step, packer, None) if len(split) else None


def _report(trainer: PackedTrainer, split: Split, seconds: float) -> dict[str, object]:
    """Return losses and counts for reports/train.json. Only `speed` varies between equal runs."""
    rows = history(trainer.state.log_history)
    validated = [row["validation_loss"] for row in rows if row["validation_loss"] != ""]
    return {
        "loss": rows[-1]["train_loss"],
        **({"validation_loss": validated[-1]} if validated else {}),
        "questions": int(split.branch_counts.sum()),
        "steps": trainer.state.global_step,
        "speed": trainer.speed.report(seconds),
    }
