"""Measure what a precision costs in quality: compare the same runs in several precisions, question by question.

    python -m benchmarks.precision_quality PRESET MODEL SQUAD WORK [--precision fp8 ...] [--seeds 5] [--at-once 5]

Runs the stages train and evaluate in WORK, in bf16 and in each `--precision`, with `train.seed` 0, 1, ... All runs use
PRESET's params. MODEL (a folder) replaces the preset's model, and all of train.json and dev.json of SQUAD replace its
data.

Prints one JSON line for each run, then one for each precision: the mean differences from bf16 over the seeds. For F1 it
also gives the 95 % interval of a paired bootstrap over the passages of dev.
"""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import click

from benchmarks.job import (
    SCORES,
    SIDE_BY_SIDE,
    change,
    on_all_gpus,
    prepare,
    read_json,
    run_stages,
    takes_a_job,
    train_and_score,
    variant,
)
from benchmarks.paired import f1_difference

REFERENCE = "bf16"
Run = dict[str, Any]


def run(shared: Path, precision: str, seed: int, gpu: str) -> Run:
    """Train and evaluate in a copy of a preprocessed workspace; return scores, losses and predictions."""
    work = variant(shared, f"{precision}-{seed}", model={"precision": precision}, train={"seed": seed})
    return {
        "precision": precision,
        "seed": seed,
        **train_and_score(work, CUDA_VISIBLE_DEVICES=gpu, **SIDE_BY_SIDE),
        **read_json(work / "reports" / "train.json").get("divergence", {}),
        "predictions": read_json(work / "build" / "predictions.json"),
    }


def compare(runs: Sequence[Run], precision: str, dev: Path) -> dict[str, Any]:
    """Return the mean differences between the runs in a precision and those in bf16 with the same seeds."""
    ours, reference = (_by_seed(runs, name) for name in (precision, REFERENCE))
    pairs = [(ours[seed], reference[seed]) for seed in reference]
    means = {f"{key}_difference": mean(a[key] - b[key] for a, b in pairs) for key in (*SCORES[1:], "validation_loss")}
    f1 = f1_difference([(a["predictions"], b["predictions"]) for a, b in pairs], dev)
    return {"precision": precision, "seeds": len(pairs), **f1, **means}


def _by_seed(runs: Sequence[Run], precision: str) -> dict[int, Run]:
    return {run["seed"]: run for run in runs if run["precision"] == precision}


@click.command(help=__doc__)
@takes_a_job
@click.option("--precision", "precisions", multiple=True, default=("fp8", "nf4"))
@click.option("--seeds", default=5)
@click.option("--at-once", default=5, help="How many runs share a GPU.")
def main(
    preset: str, model: Path, squad: Path, work: Path, precisions: tuple[str, ...], seeds: int, at_once: int
) -> None:
    """Print one JSON line for each run and for each precision."""
    shared = work / "shared"
    prepare(preset, model, squad, shared)
    change(shared, preprocess={"limit": None}, evaluate={"limit": None})
    run_stages(shared, "fetch", "preprocess")
    runs = []
    pairs = list(product((REFERENCE, *precisions), range(seeds)))
    for result in on_all_gpus(lambda pair, gpu: run(shared, *pair, gpu), pairs, at_once):
        runs.append(result)
        shown = {key: value for key, value in result.items() if key != "predictions"}
        print("RESULT", json.dumps(shown), flush=True)
    for precision in precisions:
        print("RESULT", json.dumps(compare(runs, precision, shared / "data" / "dev.json")), flush=True)


if __name__ == "__main__":
    main()
