"""Create workspaces for benchmarks, run stages in them without DVC, and distribute runs over all GPUs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import click
import torch
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
CODE = ("falcon_job", "presets", "dvc.yaml")
SCORES = ("f1", "has_ans_f1", "no_ans_f1")
SIDE_BY_SIDE = {"FALCON_JOB_TOKENS_PER_PACK": "4096", "FALCON_JOB_ACTIVATION_CHECKPOINTING": "off"}
"""For runs that share a GPU: settings that would otherwise depend on the memory that other runs leave free."""

T = TypeVar("T")
R = TypeVar("R")


def takes_a_job(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments PRESET MODEL SQUAD WORK to a command."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    for argument in (
        click.argument("work", type=click.Path(exists=False, path_type=Path)),
        click.argument("squad", type=folder),
        click.argument("model", type=folder),
        click.argument("preset"),
    ):
        command = argument(command)
    return command


def prepare(preset: str, model: Path, squad: Path, work: Path) -> None:
    """Create a workspace that runs `preset` on a local model and local questions."""
    work.mkdir(parents=True)
    for name in CODE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, work / name)
    (work / "data").mkdir()
    for name in ("train.json", "dev.json"):
        shutil.copy(squad / name, work / "data" / name)
    yaml = YAML()
    params = yaml.load((ROOT / "presets" / f"{preset}.yaml").read_text(encoding="utf-8"))
    params["model"].update(source=str(model.resolve()), revision=None)
    params["dataset"].update(train="data/train.json", dev="data/dev.json", train_sha256=None, dev_sha256=None)
    with (work / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def stage_environment(work: Path) -> dict[str, str]:
    """Return the environment in which a stage runs the code of a workspace."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(work), os.environ.get("PYTHONPATH", "")])}


def on_all_gpus(handle: Callable[[T, str], R], items: Sequence[T], at_once: int) -> Iterator[R]:
    """Yield what `handle` returns for each item, in the order of the items.

    Args:
        handle: a function of an item and of a value for CUDA_VISIBLE_DEVICES, which selects one of the visible GPUs.
        items: what to handle.
        at_once: how many items to handle at the same time on each GPU.
    """
    free: SimpleQueue[str] = SimpleQueue()
    lanes = _gpus() * at_once
    for gpu in lanes:
        free.put(gpu)

    def on_a_free_one(item: T) -> R:
        gpu = free.get()
        try:
            return handle(item, gpu)
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(len(lanes)) as pool:
        yield from pool.map(on_a_free_one, items)


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return [""]
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def run_stages(work: Path, *stages: str, **environment: str) -> None:
    """Run stages in a workspace, with additional environment variables.

    Raises:
        SystemExit: a stage failed; the message has the end of its output.
    """
    for stage in stages:
        command = [sys.executable, "-m", "falcon_job", stage]
        env = {**stage_environment(work), **environment}
        done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{work.name}: {stage} exited with {done.returncode}\n{done.stderr[-4000:]}")


def train_and_score(work: Path, **environment: str) -> dict[str, float]:
    """Train and evaluate in a preprocessed workspace; return the scores and the validation loss."""
    run_stages(work, "train", "evaluate", **environment)
    loss = read_json(work / "reports" / "train.json")["validation_loss"]
    return {**scores(work, "eval"), "validation_loss": loss}


def scores(work: Path, report: str) -> dict[str, float]:
    """Return the F1 scores in a report."""
    content = read_json(work / "reports" / f"{report}.json")
    return {name: content[name] for name in SCORES}


def change(work: Path, **groups: dict[str, Any]) -> None:
    """Change the params of a workspace."""
    yaml = YAML()
    params = yaml.load(work / "params.yaml")
    for group, values in groups.items():
        params[group].update(values)
    yaml.dump(params, work / "params.yaml")


def variant(shared: Path, name: str, **groups: dict[str, Any]) -> Path:
    """Copy a preprocessed workspace to a folder beside it, change params of the copy, and return its path."""
    work = shared.with_name(name)
    shutil.copytree(shared, work)
    change(work, **groups)
    return work


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file, such as a report."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
