"""Measure the loss after equal epochs with different numbers of questions per step, each at its best learning rate.

    python -m benchmarks.step_size PRESET MODEL SQUAD WORK [--questions 32 ...] [--learning-rate 0.0005 ...]
        [--seeds 2] [--at-once 5]

Trains in WORK with the stage's own command and PRESET's params. MODEL (a folder) replaces the preset's model, and all
of train.json and dev.json of SQUAD replace its data. First, one seed tries each learning rate with each number of
questions per step. Then the best rate runs with other seeds, and only their losses count. They are losses on the
validation split, which is not trained on.

Prints one JSON line for each run, then one for each number of questions: mean and standard deviation over the seeds.
`at_edge` says that the best learning rate was the smallest or largest one tried, so a rate beyond it may be better.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import click

from benchmarks.job import SIDE_BY_SIDE, change, on_all_gpus, prepare, read_json, run_stages, takes_a_job, variant


@dataclass(frozen=True)
class Run:
    """One training run."""

    questions_per_step: int
    learning_rate: float
    seed: int


def train(shared: Path, run: Run, gpu: str) -> float:
    """Train and return the validation loss, or infinity if training failed."""
    name = f"{run.questions_per_step}-{run.learning_rate:g}-{run.seed}"
    work = variant(shared, name, train=asdict(run))
    try:
        run_stages(work, "train", CUDA_VISIBLE_DEVICES=gpu, **SIDE_BY_SIDE)
        loss = float(read_json(work / "reports" / "train.json")["validation_loss"])
    except SystemExit as stopped:  # the learning rate was too high
        print(stopped, file=sys.stderr)
        loss = math.inf
    print("RESULT", json.dumps({**asdict(run), "validation_loss": loss}), flush=True)
    return loss


def train_all(shared: Path, runs: Sequence[Run], at_once: int) -> dict[Run, float]:
    """Train several runs at the same time; return their losses."""
    return dict(zip(runs, on_all_gpus(lambda run, gpu: train(shared, run, gpu), runs, at_once), strict=True))


def summarize(
    losses: dict[Run, float], best: dict[int, float], seeds: int, rates: Sequence[float]
) -> list[dict[str, object]]:
    """Return a row for each number of questions per step, at its best learning rate."""
    rows: list[dict[str, object]] = []
    for questions, rate in best.items():
        found = [losses[Run(questions, rate, seed)] for seed in range(1, seeds + 1)]
        rows.append(
            {
                "questions_per_step": questions,
                "learning_rate": rate,
                "seeds": len(found),
                "validation_loss": round(mean(found), 4),
                "deviation": round(stdev(found), 4) if len(found) > 1 else None,
                "at_edge": rate in (min(rates), max(rates)),
            }
        )
    return rows


@click.command(help=__doc__)
@takes_a_job
@click.option("--questions", type=int, multiple=True, default=(32, 64, 128, 256, 512, 1024))
@click.option("--learning-rate", "rates", type=float, multiple=True, default=(2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3))
@click.option("--seeds", default=2)
@click.option("--at-once", default=5, help="How many runs share a GPU.")
def main(
    preset: str,
    model: Path,
    squad: Path,
    work: Path,
    questions: tuple[int, ...],
    rates: tuple[float, ...],
    seeds: int,
    at_once: int,
) -> None:
    """Print one JSON line for each run and one for each number of questions."""
    shared = work / "shared"
    prepare(preset, model, squad, shared)
    change(shared, preprocess={"limit": None}, train={"eval_steps": None})
    run_stages(shared, "fetch", "preprocess")
    losses = train_all(shared, [Run(*pair, seed=0) for pair in product(questions, rates)], at_once)
    best = {count: min(rates, key=lambda rate: losses[Run(count, rate, 0)]) for count in questions}
    again = [Run(*pair, seed=seed) for pair in best.items() for seed in range(1, seeds + 1)]
    losses |= train_all(shared, again, at_once)
    for row in summarize(losses, best, seeds, rates):
        print("RESULT", json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
