"""Measure how fast training is and where the time goes: the shipped trainer on real questions.

    python -m benchmarks.train_engine MODEL SPLIT [--precision bf16] [--questions 256 ...] [--steps 12]

MODEL is a folder with a base model. If it is a folder named falcon-7b that does not exist, it is created with random
weights of Falcon-7B's shape. SPLIT is an encoded split (build/dataset/train.arrow).

Prints one JSON line for each setting. Each step runs once before the measurement, so that all layers are compiled. Time
is measured between two synchronizations with the device. `questions_per_second_without_trainer` is the speed of the
same packs in a plain loop: forward, backward, gradient clipping, optimizer.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from transformers import TrainerCallback

from falcon_job.machine import Machine
from falcon_job.model.compute import load_for_training, prepare_layers
from falcon_job.packing import completion_loss
from falcon_job.params import Params, load_params
from falcon_job.tokens.dataset import Split
from falcon_job.training.self_check import check_packing
from falcon_job.training.speed import peak_memory
from falcon_job.training.steps import Step, StepDataset
from falcon_job.training.trainer import PackedTrainer, build_trainer

ROOT = Path(__file__).parents[1]
WARM_UP = 3
TOP = 14
"""How many kernels a profile lists by name."""


class Clock(TrainerCallback):
    """Times the steps after the warm-up steps."""

    def __init__(self, trainer: PackedTrainer, warm_up: int) -> None:
        self.trainer = trainer
        self.warm_up = warm_up
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock after the warm-up and stop it after the last step."""
        if state.global_step == self.warm_up:
            _synchronize()
            self.before = replace(self.trainer.speed)
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            self.started = time.perf_counter()
        if state.global_step == state.max_steps:
            _synchronize()
            self.seconds = time.perf_counter() - self.started


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Repeated(torch.utils.data.Dataset[Any]):
    """The first steps of a plan, repeated."""

    def __init__(self, plan: StepDataset, steps: int) -> None:
        self.whole = max(1, len(plan) - 1)  # the last step of an epoch may be smaller
        self.warm_up = max(WARM_UP, self.whole)
        self.items = [plan[i % self.whole] for i in range(self.warm_up + steps)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, step: int) -> Any:
        return self.items[step]


def make_random_falcon_7b(folder: Path) -> None:
    """Write a model of Falcon-7B's shape with random bf16 weights."""
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(alibi=False, bos_token_id=11, eos_token_id=11)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.set_default_dtype(torch.bfloat16)
        model = FalconForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)


def measure(trainer: PackedTrainer, warm_up: int) -> dict[str, float]:
    """Train and return the speed after the warm-up steps."""
    clock = Clock(trainer, warm_up)
    trainer.add_callback(clock)
    trainer.train()
    report = trainer.speed.since(clock.before).report(clock.seconds)
    return {**report, "steps": trainer.state.max_steps - warm_up}


def _model(trainer: PackedTrainer) -> torch.nn.Module:
    assert isinstance(trainer.model, torch.nn.Module)
    return trainer.model


def bare(trainer: PackedTrainer, repeated: Repeated) -> float:
    """Return the questions per second of the same steps without the Trainer."""
    model, optimizer = _model(trainer), trainer.optimizer
    assert optimizer, "the Trainer creates it"
    parameters = [p for p in model.parameters() if p.requires_grad]
    questions = 0
    model.train()
    steps = [
        ([pack.to(trainer.args.device) for pack in step["packs"]], step["completion_tokens"], step["branches"])
        for step in repeated.items
    ]
    for number, (packs, supervised, count) in enumerate(steps):
        if number == repeated.warm_up:
            _synchronize()
            started = time.perf_counter()
        for pack in packs:
            (completion_loss(model, pack) / supervised).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        questions += count if number >= repeated.warm_up else 0
    _synchronize()
    return questions / (time.perf_counter() - started)


def profile(trainer: PackedTrainer, step: Step) -> dict[str, Any]:
    """Return the milliseconds of a step by kind of kernel, and those of the gaps between kernels."""
    model = _model(trainer)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        for pack in step["packs"]:
            (completion_loss(model, pack.to(trainer.args.device)) / step["completion_tokens"]).backward()
        _synchronize()
    kernels = [e for e in seen.events() if e.device_type.name == "CUDA"]
    kinds: dict[str, float] = {}
    names: dict[str, float] = {}
    for event in kernels:
        milliseconds = event.time_range.elapsed_us() / 1e3
        kinds[_kind(event.name)] = kinds.get(_kind(event.name), 0.0) + milliseconds
        names[event.name] = names.get(event.name, 0.0) + milliseconds
    span = (max(e.time_range.end for e in kernels) - min(e.time_range.start for e in kernels)) / 1e3
    top = sorted(names.items(), key=lambda item: -item[1])[:TOP]
    return {
        **{kind: round(value, 1) for kind, value in sorted(kinds.items())},
        "gaps": round(span - sum(kinds.values()), 1),
        "span": round(span, 1),
        "top": {name[:70]: round(value, 1) for name, value in top},
    }


def _kind(kernel: str) -> str:
    name = kernel.lower()
    if "flex" in name:
        return "attention"
    if any(part in name for part in ("gemm", "nvjet", "cutlass", "cublas", "splitk")):
        return "matmul"
    if "triton" in name:
        return "fused"
    return "other"


def settings(folder: Path, precision: str, questions: int) -> Params:
    """Return the demo's params with the LoRA settings of the Falcon-7B presets."""
    params = load_params(ROOT / "presets" / "demo.yaml")
    train = params.train.model_copy(
        update={"questions_per_step": questions, "epochs": 1, "logging_steps": 5, "optimizer": "adamw_torch_fused"}
    )
    lora = params.lora.model_copy(update={"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": ["query_key_value"]})
    model = params.model.model_copy(update={"source": str(folder), "precision": precision})
    return params.model_copy(update={"train": train, "lora": lora, "model": model})


def run(folder: Path, split: Path, precision: str, questions: tuple[int, ...], steps: int) -> Iterator[dict[str, Any]]:
    """Yield the result for each number of questions per step."""
    params = settings(folder, precision, questions[0])
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    model, compute = load_for_training(folder, params, Machine())
    loaded = time.perf_counter() - started
    loading_gb = peak_memory() / 1e9
    prepare_layers(model.get_base_model(), compute)
    packer = compute.packer()
    data = Split(split)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    difference = check_packing(model, StepDataset(data, 64, packer, 0).trees(0), params.model.precision, packer)
    yield {
        "precision": precision,
        "load_seconds": round(loaded, 1),
        "load_peak_gb": round(loading_gb, 2),
        "self_check_seconds": round(time.perf_counter() - started, 1),
        "self_check_peak_gb": round(peak_memory() / 1e9, 2),
        "self_check": str(difference),
        "compute": str(compute),
    }
    profiled = 256 if torch.cuda.is_available() else None
    for count in questions:
        params = settings(folder, precision, count)
        plan = StepDataset(data, count, packer, 0)
        repeated = Repeated(plan, steps)
        with tempfile.TemporaryDirectory() as scratch:
            trainer = build_trainer(model, params, Machine(), repeated, None, Path(scratch))  # type: ignore[arg-type]  # steps, repeated
            trainer.args.save_strategy = "no"
            result = measure(trainer, repeated.warm_up)
        whole = range(repeated.whole)
        packs = [pack for step in whole for pack in plan[step]["packs"]]
        filled = sum(len(tree) for step in whole for tree in plan.trees(step))
        yield {
            "precision": precision,
            "questions_per_step": count,
            **result,
            "fill": round(filled / sum(map(len, packs)), 3),
            "lengths": sorted({len(pack) for pack in packs}),
            "questions_per_second_without_trainer": round(bare(trainer, repeated), 1),
            **({"profile_ms": profile(trainer, repeated.items[0])} if profiled == count else {}),
        }


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("split", type=click.Path(exists=True, path_type=Path))
@click.option("--precision", default="bf16")
@click.option("--questions", type=int, multiple=True, default=(256,))
@click.option("--steps", default=12)
def main(folder: Path, split: Path, precision: str, questions: tuple[int, ...], steps: int) -> None:
    """Print one JSON line for each setting."""
    if folder.name == "falcon-7b" and not folder.exists():
        make_random_falcon_7b(folder)
    for result in run(folder, split, precision, questions, steps):
        print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
