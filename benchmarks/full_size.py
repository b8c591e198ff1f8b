"""Measure what each stage of a preset costs at full size: wall time, peak GPU and host memory, size of its outputs.

    python -m benchmarks.full_size PRESET MODEL SQUAD WORK [--cap-gb 7]

Runs the stages' own commands in WORK, without DVC. WORK is a copy of the code with PRESET's params. MODEL (a folder
with safetensors and a tokenizer) replaces the preset's model, and train.json and dev.json of SQUAD replace its data.

GPU memory is what the device has in use, sampled every tenth of a second, minus what was in use before. `--cap-gb`
limits the memory that torch may use in each process, as on a smaller card. Host memory is the resident set of the
process, including the pages of weights that it maps.

Prints one JSON line for each stage. WORK/STAGE.log holds the stage's output.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.job import prepare, read_json, stage_environment, takes_a_job
from falcon_job.pipeline import STAGES

POLL_SECONDS = 0.1
OUTPUTS = {
    "fetch": ("build/raw", "build/base.json"),
    "preprocess": ("build/dataset",),
    "train": ("build/adapter",),
    "baseline": ("build/baseline",),
    "evaluate": ("build/predictions.json", "build/forced.json", "build/na_prob.json", "build/samples.json"),
    "export": ("build/export", "dist"),
}
CAP = "FULL_SIZE_CAP_BYTES"
CAPPED_STAGE = f"""
import os, runpy, sys, torch
free, total = torch.cuda.mem_get_info()
torch.cuda.set_per_process_memory_fraction(int(os.environ["{CAP}"]) / total)
sys.argv[0] = "falcon_job"
runpy.run_module("falcon_job", run_name="__main__", alter_sys=True)
"""


class Watch(threading.Thread):
    """Records the peak GPU memory while it runs, minus the memory in use before it was created."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = _gpu_in_use()
        self.peak = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Sample the memory until `end` is called."""
        while not self._ended.wait(POLL_SECONDS):
            self.peak = max(self.peak, _gpu_in_use() - self.before)

    def end(self) -> int:
        """Stop and return the peak in bytes."""
        self._ended.set()
        self.join()
        return self.peak


def _gpu_in_use() -> int:
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def run_stage(stage: str, work: Path, cap_bytes: int | None) -> dict[str, Any]:
    """Run a stage and return its time, peak memory and size of outputs.

    Raises:
        SystemExit: the stage failed; the message has the end of its output.
    """
    command = [sys.executable, "-c", CAPPED_STAGE, stage] if cap_bytes else [sys.executable, "-m", "falcon_job", stage]
    env = {**stage_environment(work), CAP: str(cap_bytes or 0)}
    watch = Watch()
    watch.start()
    log = work / f"{stage}.log"
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=work, env=env, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    peak = watch.end()
    said = log.read_text(encoding="utf-8").strip()
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{stage} exited with {code}\n{said[-4000:]}")
    files = [file for name in OUTPUTS[stage] for file in _files(work / name)]
    return {
        "stage": stage,
        "seconds": round(seconds, 1),
        "gpu_peak_gb": round(peak / 1e9, 2),
        "host_peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "outputs_mb": round(sum(file.stat().st_size for file in files) / 1e6, 2),
        "last_line": said.rpartition("\n")[2],
    }


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


@click.command(help=__doc__)
@takes_a_job
@click.option("--cap-gb", type=float)
def main(preset: str, model: Path, squad: Path, work: Path, cap_gb: float | None) -> None:
    """Print one JSON line for each stage, then the reports."""
    prepare(preset, model, squad, work)
    for stage in STAGES:
        print("RESULT", json.dumps(run_stage(stage, work, int(cap_gb * 1e9) if cap_gb else None)), flush=True)
    for name in ("data", "train", "baseline", "eval", "export"):
        report = read_json(work / "reports" / f"{name}.json")
        print("REPORT", name, json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
