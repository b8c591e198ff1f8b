"""What a preset scores, untuned and trained with several seeds.

    python -m benchmarks.seeds PRESET MODEL SQUAD WORK [--seeds 5] [--at-once 1]

Runs the stages' own commands in WORK: PRESET's params with MODEL (a folder) in place of its model and SQUAD's
train.json and dev.json in place of its data; `train.seed` 0, 1, ... One JSON line for the untuned model and for each
seed, then the mean and the standard deviation over seeds.
"""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click

from benchmarks.job import SIDE_BY_SIDE, on_all_gpus, prepare, read_json, run_stages, takes_a_job, variant

SCORES = ("f1", "has_ans_f1", "no_ans_f1")


def run(shared: Path, seed: int, gpu: str, environment: dict[str, str]) -> dict[str, Any]:
    """Train and evaluate in a copy of a workspace that is preprocessed; return its numbers."""
    work = variant(shared, str(seed), train={"seed": seed})
    run_stages(work, "train", "evaluate", CUDA_VISIBLE_DEVICES=gpu, **environment)
    trained, scored = (read_json(work / "reports" / f"{name}.json") for name in ("train", "eval"))
    return {"seed": seed, **scores(scored), "validation_loss": trained["validation_loss"]}


def scores(report: dict[str, Any]) -> dict[str, float]:
    """Return what is compared of a report."""
    return {name: report[name] for name in SCORES}


@click.command(help=__doc__)
@takes_a_job
@click.option("--seeds", type=click.IntRange(min=2), default=5)
@click.option("--at-once", default=1, help="Runs at a time on each GPU.")
def main(preset: str, model: Path, squad: Path, work: Path, seeds: int, at_once: int) -> None:
    """Print one JSON line for the untuned model, one a seed, mean and deviation."""
    shared = work / "shared"
    prepare(preset, model, squad, shared)
    run_stages(shared, "fetch", "preprocess", "baseline")
    print("RESULT", json.dumps({"untuned": scores(read_json(shared / "reports" / "baseline.json"))}), flush=True)
    environment = SIDE_BY_SIDE if at_once > 1 else {}
    runs = []
    for result in on_all_gpus(lambda seed, gpu: run(shared, seed, gpu, environment), range(seeds), at_once):
        runs.append(result)
        print("RESULT", json.dumps(result), flush=True)
    for name, over in (("mean", mean), ("deviation", stdev)):
        print("RESULT", json.dumps({name: {score: round(over(r[score] for r in runs), 2) for score in SCORES}}))


if __name__ == "__main__":
    main()
