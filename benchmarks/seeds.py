"""Measure the scores of a preset, untuned and trained with several seeds.

    python -m benchmarks.seeds PRESET MODEL SQUAD WORK [--seeds 5] [--at-once 1]

Runs the stages in WORK with PRESET's params and `train.seed` 0, 1, ... MODEL (a folder) replaces the preset's model,
and train.json and dev.json of SQUAD replace its data.

Prints one JSON line for the untuned model and one for each seed, then the mean and standard deviation over the seeds.
"""

import json
from pathlib import Path
from statistics import mean, stdev

import click

from benchmarks.job import (
    SCORES,
    SIDE_BY_SIDE,
    on_all_gpus,
    prepare,
    run_stages,
    scores,
    takes_a_job,
    train_and_score,
    variant,
)


@click.command(help=__doc__)
@takes_a_job
@click.option("--seeds", type=click.IntRange(min=2), default=5)
@click.option("--at-once", default=1, help="How many runs share a GPU.")
def main(preset: str, model: Path, squad: Path, work: Path, seeds: int, at_once: int) -> None:
    """Print a JSON line for the untuned model, for each seed, for the mean and for the standard deviation."""
    shared = work / "shared"
    prepare(preset, model, squad, shared)
    run_stages(shared, "fetch", "preprocess", "baseline")
    print("RESULT", json.dumps({"untuned": scores(shared, "baseline")}), flush=True)
    environment = SIDE_BY_SIDE if at_once > 1 else {}

    def run(seed: int, gpu: str) -> dict[str, float]:
        work = variant(shared, str(seed), train={"seed": seed})
        return {"seed": seed, **train_and_score(work, CUDA_VISIBLE_DEVICES=gpu, **environment)}

    runs = []
    for result in on_all_gpus(run, range(seeds), at_once):
        runs.append(result)
        print("RESULT", json.dumps(result), flush=True)
    for name, over in (("mean", mean), ("deviation", stdev)):
        print("RESULT", json.dumps({name: {score: round(over(r[score] for r in runs), 2) for score in SCORES}}))


if __name__ == "__main__":
    main()
