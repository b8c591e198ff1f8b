"""Measure how preprocessing scales with the number of questions: time, peak host memory, and memory per question.

    python -m benchmarks.data_scale [--questions 10000 ...] [--format jsonl]

Generates synthetic questions, seven per passage of about 120 words, and runs the stage with its own command. Settings
and tokenizer are those of the demo, with 1,024 as `preprocess.max_tokens`. Host memory is the resident set of the
stage, including the pages of mapped files. `kept_bytes_a_question` is the memory that a process holds per question once
it has planned all training steps.

Prints one JSON line for each number of questions.
"""

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from benchmarks.job import CODE, ROOT, stage_environment
from falcon_job.packing import Packer
from falcon_job.tokens.dataset import Split
from falcon_job.training.steps import StepDataset

QUESTIONS_PER_PASSAGE = 7
WORDS = "the harbour of a city was dug by many people in stone and later sold to another king".split()  # noqa: SIM905
ROWS_AT_A_TIME = 10_000


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Yield flat rows. Rows of the same passage are adjacent, as in most files."""
    draw = random.Random(0)
    context, years = "", []
    for number in range(count):
        if number % QUESTIONS_PER_PASSAGE == 0:
            years = [str(draw.randrange(1000, 2000)) for _ in range(QUESTIONS_PER_PASSAGE)]
            parts = [" ".join([*draw.choices(WORDS, k=15), year]) for year in years]
            context = f"Passage {number}. " + ". ".join(parts) + "."
        year = years[number % QUESTIONS_PER_PASSAGE]
        answers: dict[str, list[Any]] = {"text": [year], "answer_start": [context.index(year)]}
        if draw.random() < 1 / 3:
            answers = {"text": [], "answer_start": []}
        question = " ".join(["When was", *draw.choices(WORDS, k=6)]) + "?"
        article = f"Article {number // 700}"
        yield {"id": f"q{number}", "title": article, "context": context, "question": question, "answers": answers}


def write(path: Path, count: int) -> None:
    """Write generated rows to a file: JSON Lines or Parquet, depending on its suffix."""
    remaining = rows(count)
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in remaining)
        return
    schema = pa.Table.from_pylist(list(islice(rows(count), 1000))).schema
    with pq.ParquetWriter(path, schema) as writer:
        while part := list(islice(remaining, ROWS_AT_A_TIME)):
            writer.write_table(pa.Table.from_pylist(part, schema))


def prepare(work: Path, name: str, count: int) -> None:
    """Copy the code and the demo to a folder, and replace the training questions with generated ones."""
    for code in CODE:
        copy = shutil.copytree if (ROOT / code).is_dir() else shutil.copy
        copy(ROOT / code, work / code)
    shutil.copytree(ROOT / "data", work / "data")
    write(work / "data" / name, count)
    yaml = YAML()
    params = yaml.load((ROOT / "presets" / "demo.yaml").read_text(encoding="utf-8"))
    params["dataset"].update(train=f"data/{name}", train_sha256=None)
    params["preprocess"].update(max_tokens=1024, limit=None, validation_fraction=0.01)
    yaml.dump(params, work / "params.yaml")


def run_stage(work: Path, stage: str) -> tuple[float, int]:
    """Run a stage; return its duration in seconds and its peak resident set in bytes.

    Raises:
        SystemExit: the stage failed.
    """
    command = [sys.executable, "-m", "falcon_job", stage]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=work, env=stage_environment(work), stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{stage} exited with {code}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def planned_bytes(split: Path) -> int:
    """Return the bytes that Python and NumPy hold for the planned steps of a split."""

    def plan() -> StepDataset:
        return StepDataset(Split(split), 128, Packer.dense(2048), seed=0)

    plan()  # so that its imports are not counted
    tracemalloc.start()
    steps = plan()
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(steps)
    return held


@click.command(help=__doc__)
@click.option("--questions", type=int, multiple=True, default=(10_000, 100_000, 1_000_000))
@click.option("--format", "suffix", type=click.Choice(["jsonl", "parquet"]), default="jsonl")
def main(questions: tuple[int, ...], suffix: str) -> None:
    """Print one JSON line for each number of questions."""
    for count in questions:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            prepare(work, f"train.{suffix}", count)
            run_stage(work, "fetch")
            seconds, peak = run_stage(work, "preprocess")
            dataset = work / "build" / "dataset" / "train.arrow"
            result = {
                "questions": count,
                "format": suffix,
                "file_mb": round((work / "data" / f"train.{suffix}").stat().st_size / 1e6, 1),
                "seconds": round(seconds, 1),
                "peak_gb": round(peak / 1e9, 2),
                "kept_bytes_a_question": round(planned_bytes(dataset) / sum(Split(dataset).branch_counts), 1),
            }
        print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
