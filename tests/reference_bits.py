"""Does the job still give the same bits? Runs whole jobs on small models and hashes their outputs.

    python -m tests.reference_bits            compare with tests/reference_bits.json; exit 1 on a difference
    python -m tests.reference_bits --record   write that file, after a change that is meant to give other results

A refactoring must leave every hash as it is. Results of floating point differ between processors and versions of torch,
so the file holds one set of hashes for each.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from falcon_job.pipeline import STAGES

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_suffix(".json")
SAME_BITS = (
    "build/dataset/*",
    "build/adapter/*",
    "reports/history.csv",
    "build/*predictions.json",
    "build/*forced.json",
    "build/*na_prob.json",
    "build/baseline/*",
)
SHORT: dict[str, Any] = {
    "model.source": "data/model",
    "preprocess.limit": 60,
    "train.epochs": 2,
    "train.questions_per_step": 8,
    "train.logging_steps": 1,
    "evaluate.limit": 12,
    "export.verify": 4,
}
CASES: dict[str, dict[str, Any]] = {
    "demo": {},
    "falcon_7b_type bf16": {**SHORT, "model.precision": "bf16"},
    "falcon_7b_type nf4": {**SHORT, "model.precision": "nf4", "evaluate.extractive": True},
    "falcon_40b_type fp32": {**SHORT, "preprocess.max_tokens": 160},
    "llama_type fp8": {**SHORT, "model.precision": "fp8", "lora.target_modules": ["v_proj", "q_proj"]},
}
"""Changes to the demo's params; the first word of a name is the function of tests.tiny_models that makes the model."""


def environment() -> str:
    """Return what bits of floating point depend on, on one thread: the processor and the build of torch."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0] if cpuinfo.is_file() else ""
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    processor = [facts.get(name, "?") for name in ("vendor_id", "cpu family", "model")]
    features = sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(facts.get("flags", "").split()))
    return " ".join([platform.machine(), *processor, *features, f"torch {torch.__version__}"])


def hashes(case: str) -> dict[str, str]:
    """Run all stages of a case in a process of its own; return the sha256 of each file, by its path."""
    with TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FALCON_JOB_")}
        subprocess.run(
            [sys.executable, "-m", "tests.reference_bits", "--run", case, folder],
            cwd=ROOT,
            env={**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "FALCON_JOB_DEVICE": "cpu"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        files = sorted({file for pattern in SAME_BITS for file in Path(folder).glob(pattern) if file.is_file()})
        return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def run(case: str, folder: Path) -> None:
    """Run all stages of a case in a folder that stands for a clone."""
    from falcon_job.cli import cli

    _lay_out(case, folder)
    os.chdir(folder)
    for stage in STAGES:
        cli.main([stage], standalone_mode=False)


def _lay_out(case: str, folder: Path) -> None:
    (folder / "falcon_job").symlink_to(ROOT / "falcon_job")
    (folder / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
    (folder / "data").mkdir()
    for source in (ROOT / "data").iterdir():
        (folder / "data" / source.name).symlink_to(source)
    params = YAML(typ="safe").load(ROOT / "presets" / "demo.yaml")
    for path, value in CASES[case].items():
        group, key = path.split(".")
        params[group][key] = value
    YAML().dump(params, folder / "params.yaml")
    if case != "demo":
        _save_model(case.split()[0], folder / "data" / "model")


def _save_model(maker: str, folder: Path) -> None:
    """Save a tiny model with random weights and the demo's tokenizer."""
    from transformers import AutoTokenizer

    from tests import tiny_models

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "falcon-tiny", local_files_only=True)
    model = getattr(tiny_models, maker)(vocab_size=len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def compare(case: str) -> list[str]:
    """Return the files of a case that differ from the record."""
    recorded, now = json.loads(RECORD.read_text(encoding="utf-8"))[environment()][case], hashes(case)
    return sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))


def main(arguments: list[str]) -> int:
    """Compare or record."""
    if arguments[:1] == ["--run"]:
        with contextlib.redirect_stdout(io.StringIO()):
            run(arguments[1], Path(arguments[2]))
        return 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if arguments == ["--record"]:
            record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
            record[environment()] = dict(zip(CASES, pool.map(hashes, CASES), strict=True))
            RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            return 0
        differing = dict(zip(CASES, pool.map(compare, CASES), strict=True))
    for case, files in differing.items():
        print(f"{case}: {'differs in ' + ', '.join(files) if files else 'the same bits'}")
    return int(any(differing.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
