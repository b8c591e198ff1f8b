"""Compare training with transformers.Trainer, TRL's SFTTrainer and LitGPT on the same questions, weights and LoRA.

    python -m benchmarks.train_speed PRESET MODEL SQUAD WORK [--limit N] [--epochs 4] [--rows 8 --rows 32]
        [--most-seconds S] [--output FILE]

All systems use PRESET's hyperparameters, without dropout. MODEL is a folder (LitGPT is set up only for a Falcon of the
7B type). SQUAD is a folder with train.json and dev.json. At most N training questions are used.

Each system runs as shipped, once for each batch size. A system that uses transformers' Falcon also runs with its
attention fixed (`mended`, see `benchmarks.peers.mended`). Each setting runs in its own process, one at a time on each
GPU. The reported time is that of the fastest epoch after the first.

If a system packs, its packs are compared with separate sequences. If their gradients differ, `leaks` is true, and the
setting is left out of the ratios. The trained models answer dev. With `--most-seconds` they do not, and an epoch of a
peer that takes longer ends after the current optimizer step.

Prints one JSON line for each setting, then the ratios. FILE receives the same results. A setting that fails is reported
with the end of its output.

`make benchmark` creates an environment with the peers and runs this on the bundled data.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.job import (
    ROOT,
    change,
    on_all_gpus,
    prepare,
    read_json,
    run_stages,
    stage_environment,
    takes_a_job,
    variant,
)
from benchmarks.paired import f1_difference
from benchmarks.peers.task import Attention, Batching, Setting, System
from falcon_job.files import write_json
from falcon_job.params import Params, load_params

Result = dict[str, Any]
BY_TRANSFORMERS: tuple[tuple[System, Batching], ...] = (
    ("transformers", "padded"),
    ("transformers", "grouped"),
    ("trl", "padded"),
    ("trl", "grouped"),
    ("trl", "packed"),
)
ATTENTIONS: tuple[Attention, ...] = ("own", "mended")
"""Choices of attention for transformers' Falcon. Other models only have the first."""
OURS, ORDINARY_PACKING = Setting("falcon_job", "tree", "own"), Setting("falcon_job", "packed", "own")
PACKAGES = ("torch", "transformers", "peft", "trl", "litgpt")
SHOWN_OF_A_FAILURE = 300


def all_settings(rows: Sequence[int], falcon: bool) -> Iterator[Setting]:
    """Yield all settings: ours, ordinary packing in our trainer, and the peers with each batch size."""
    yield OURS
    yield ORDINARY_PACKING
    for (system, batching), attention, count in product(
        BY_TRANSFORMERS, ATTENTIONS if falcon else ATTENTIONS[:1], rows
    ):
        yield Setting(system, batching, attention, count)
    for count in rows:
        yield Setting("litgpt", "padded", "own", count)


def run(work: Path, model: Path, options: dict[str, Any], setting: Setting, gpu: str) -> Result:
    """Run a setting. Return its results, with predictions if it is scored, or with the error if it failed."""
    command = [sys.executable, "-m", "benchmarks.peers", str(model), json.dumps(options), json.dumps(asdict(setting))]
    env = {**stage_environment(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": gpu}
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
    row: Result = {"system": setting.system, "setting": asdict(setting)}
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2][:SHOWN_OF_A_FAILURE]
        return {**row, "failed": f"exit status {done.returncode}: {said}"}
    row |= json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))[len("RESULT ") :])
    if options["score"]:
        row["predictions"] = read_json(work / "build" / "predictions.json")
    return row


def run_all(shared: Path, model: Path, options: dict[str, Any], settings: Sequence[Setting]) -> Iterator[Result]:
    """Yield the results of each setting. Each GPU has its own copy of the preprocessed workspace `shared`."""

    def one(setting: Setting, gpu: str) -> Result:
        work = shared.with_name(f"gpu-{gpu}")
        if not work.exists():
            variant(shared, work.name)
        return run(work, model, options, setting, gpu)

    return on_all_gpus(one, settings, at_once=1)


def compare(results: Sequence[Result], dev: Path) -> list[Result]:
    """Compare ours with ordinary packing in our trainer and with the fastest setting of each peer."""
    done = [row for row in results if "failed" not in row and not row.get("leaks")]
    ours = [row for row in done if row["setting"] == asdict(OURS)]
    others: dict[str, list[Result]] = {}
    for row in (row for row in done if row not in ours):
        name = "perfect ordinary packing" if row["setting"] == asdict(ORDINARY_PACKING) else row["system"]
        others.setdefault(name, []).append(row)
    return [{"against": name, **_against(ours[0], rows, dev)} for name, rows in others.items() if ours]


def _against(ours: Result, rows: Sequence[Result], dev: Path) -> Result:
    best = max(rows, key=lambda row: float(row["questions_per_second"]))
    ratio = ours["questions_per_second"] / best["questions_per_second"]
    compared = {"setting": best["setting"], "times_as_fast": round(ratio, 2)}
    if "predictions" not in best:
        return compared
    return {**compared, **f1_difference([(ours["predictions"], best["predictions"])], dev)}


def _check_comparable(params: Params, rows: Sequence[int]) -> None:
    """Make sure that every system can train with the same settings."""
    conditions = {
        "model.precision fp32 or bf16": params.model.precision in ("fp32", "bf16"),
        "lora.use_rslora and lora.use_dora false": not (params.lora.use_rslora or params.lora.use_dora),
        "train.scheduler cosine": params.train.scheduler == "cosine",
        "train.warmup_ratio above 0": params.train.warmup_ratio > 0,
        "--rows that divide train.questions_per_step": not any(params.train.questions_per_step % n for n in rows),
    }
    if missing := [name for name, holds in conditions.items() if not holds]:
        raise click.UsageError(
            f"not every system can train with these settings; the comparison needs {'; '.join(missing)}"
        )


def _of_7b_type(config: Result) -> bool:
    return config["model_type"] == "falcon" and not config.get("new_decoder_architecture")


def provenance() -> Result:
    """Return where, when and how the results were measured, for the head of the results file."""
    described = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "command": " ".join(["python -m benchmarks.train_speed", *sys.argv[1:]]),
        "commit": described.stdout.strip() or None,
        "date": datetime.now(UTC).date().isoformat(),
        "device": gpu or f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "note": "tokens do not count padding; in ours questions share a passage, elsewhere each has its own copy",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _shown(result: Result) -> Result:
    return {key: value for key, value in result.items() if key != "predictions"}


@click.command(help=__doc__)
@takes_a_job
@click.option("--limit", type=int)
@click.option("--epochs", type=click.IntRange(min=2), default=4)
@click.option("--rows", type=int, multiple=True, default=(8, 32))
@click.option("--most-seconds", type=click.FloatRange(min=0, min_open=True))
@click.option("--output", type=click.Path(path_type=Path))
def main(
    preset: str,
    model: Path,
    squad: Path,
    work: Path,
    limit: int | None,
    epochs: int,
    rows: tuple[int, ...],
    most_seconds: float | None,
    output: Path | None,
) -> None:
    """Print one JSON line for each setting and one for each comparison."""
    shared = work / "shared"
    prepare(preset, model, squad, shared)
    change(shared, preprocess={"limit": limit}, evaluate={"limit": None}, lora={"dropout": 0.0})
    _check_comparable(load_params(shared / "params.yaml"), rows)
    run_stages(shared, "fetch", "preprocess")
    options = {"epochs": epochs, "most_seconds": most_seconds, "score": most_seconds is None}
    settings = list(all_settings(rows, _of_7b_type(read_json(model / "config.json"))))
    results = []
    for result in run_all(shared, model.resolve(), options, settings):
        results.append(result)
        print("RESULT", json.dumps(_shown(result)), flush=True)
    compared = compare(results, shared / "data" / "dev.json")
    for row in compared:
        print("RESULT", json.dumps(row), flush=True)
    if output:
        write_json(output, {**provenance(), "results": [_shown(row) for row in results], "compared": compared})


if __name__ == "__main__":
    main()
