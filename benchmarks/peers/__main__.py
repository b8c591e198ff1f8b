"""Run one setting in its own process: call `python -m benchmarks.peers MODEL OPTIONS SETTING` in a workspace."""

import json
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.peers.task import Setting, Task, Trained
from falcon_job.files import write_json
from falcon_job.inference.scoring import score_dev
from falcon_job.machine import Machine
from falcon_job.model.adapter import load_adapter
from falcon_job.model.loading import load_base
from falcon_job.model.precision import PRECISIONS
from falcon_job.packing import Packer, completion_loss
from falcon_job.params import load_params
from falcon_job.tokens.dataset import Split
from falcon_job.training.speed import peak_memory
from falcon_job.training.steps import StepDataset
from falcon_job.workspace import Workspace

FLOPS_OF_A_FROZEN_WEIGHT = 4
"""A frozen weight takes part in two products (forward and input gradient), with two operations each."""


def run(task: Task, setting: Setting) -> dict[str, Any]:
    """Train with a setting and return its row of results."""
    folder = task.workspace.build / "peer"
    shutil.rmtree(folder, ignore_errors=True)
    trained: Trained = import_module(f"benchmarks.peers.with_{setting.system}").train(task, setting, folder)
    measured = trained.seconds[1:]
    speed = len(task.rows) / min(measured)
    tokens = trained.tokens_per_question
    return {
        "precision": task.params.model.precision,
        "questions_per_second": round(speed, 2),
        "seconds_of_epochs": [round(seconds, 3) for seconds in measured],
        "tokens_per_second": round(speed * tokens, 1),
        "useful_tflops": round(speed * tokens * FLOPS_OF_A_FROZEN_WEIGHT * _frozen_weights(task.model) / 1e12, 4),
        "peak_memory_gb": round(peak_memory() / 1e9, 3),
        **_packing(trained, task),
        **(_scores(task, folder) if task.score else {}),
    }


def _packing(trained: Trained, task: Task) -> dict[str, Any]:
    if trained.packing_difference is None:
        return {}
    leaks = trained.packing_difference > PRECISIONS[task.params.model.precision].self_check_tolerance
    return {"packing_difference": round(trained.packing_difference, 6), "leaks": leaks}


def _frozen_weights(folder: Path) -> int:
    """Return the number of weights in a model's linear layers, without the output head."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    head = model.get_output_embeddings()
    linear = (module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head)
    return sum(module.weight.numel() for module in linear)


def _scores(task: Task, folder: Path) -> dict[str, Any]:
    """Return the validation loss and the F1 on dev; write the predictions to build/."""
    precision = task.params.model.precision
    if (folder / "adapter_config.json").is_file():
        model: Any = load_adapter(load_base(task.model, precision, task.device), folder)
    else:
        model = load_base(folder, precision, task.device)
    scored, numbers = score_dev(model, task.model, task.params, Machine(), task.workspace)
    write_json(task.workspace.build / "predictions.json", {row.reply.question.id: row.reply.answer for row in scored})
    steps = StepDataset(Split(task.workspace.dataset / "validation.arrow"), 64, Packer.dense(4096), None)
    total, count = 0.0, 0
    with torch.no_grad():
        for step in (steps[i] for i in range(len(steps))):
            total += sum(float(completion_loss(model, pack.to(task.device))) for pack in step["packs"])
            count += step["completion_tokens"]
    return {"validation_loss": round(total / count, 4), "f1": numbers["f1"]}


def main(model: str, options: str, setting: str) -> None:
    """Print one line: RESULT and JSON. `options` are arguments of `Task` and `setting` those of `Setting`, as JSON."""
    workspace = Workspace.find()
    task = Task(workspace, load_params(workspace.params), Path(model), **json.loads(options))
    print("RESULT", json.dumps(run(task, Setting(**json.loads(setting)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
