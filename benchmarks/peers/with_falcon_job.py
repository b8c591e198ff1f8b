"""This project: the same Trainer as in the `train` stage.

With batching `tree`, questions share their passage. With `packed`, each question has its own copy of the passage, in
the same engine: this is the best that ordinary packing could reach.
"""

from dataclasses import replace
from pathlib import Path

from benchmarks.peers.task import Clock, Setting, Task, Trained
from falcon_job.machine import Machine
from falcon_job.model.adapter import save_adapter
from falcon_job.model.compute import load_for_training, prepare_layers
from falcon_job.tokens.dataset import Split, write_split
from falcon_job.training.self_check import check_packing
from falcon_job.training.steps import StepDataset
from falcon_job.training.trainer import build_trainer


def train(task: Task, setting: Setting, folder: Path) -> Trained:
    """Train an adapter and write it to `folder`."""
    params = task.params.model_copy(update={"train": task.params.train.model_copy(update={"epochs": task.epochs})})
    model, compute = load_for_training(task.model, params, Machine())
    prepare_layers(model.get_base_model(), compute)
    packer = compute.packer()
    split = task.split if setting.batching == "tree" else _separate(task)
    steps = StepDataset(split, params.train.questions_per_step, packer, params.train.seed)
    difference = check_packing(model, steps.trees(0), params.model.precision, packer)

    trainer = build_trainer(model, params, Machine(), steps, None, task.workspace.scratch / "peer")
    trainer.args.save_strategy = "no"
    clock = Clock()  # whole epochs only: on a GPU, the first step of each length bucket compiles
    trainer.add_callback(clock)
    trainer.train()
    save_adapter(model, folder, params.model)
    tokens = sum(len(tree) for step in range(len(steps)) for tree in steps.trees(step)) / len(task.rows)
    return Trained(clock.seconds, tokens, difference.gradients)


def _separate(task: Task) -> Split:
    """Return the questions as passages of one question each."""
    path = task.workspace.scratch / "separate.arrow"
    write_split(path, (replace(passage, questions=[q]) for passage in task.split for q in passage.questions))
    return Split(path)
