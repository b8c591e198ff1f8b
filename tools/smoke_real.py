"""Run the whole job on a small real model and real questions, in a temporary clone, and check that the model learns.

    python -m tools.smoke_real SQUAD_FOLDER MODEL_FOLDER

SQUAD_FOLDER holds train.json and dev.json. MODEL_FOLDER holds SmolLM2-135M as safetensors.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
PRESET = "smollm2-135m"
CLEAR_GAIN = 10.0
"""How many points of F1 on answerable questions training must gain."""


def smoke_real(squad: Path, model: Path, clone: Path) -> dict[str, Mapping[str, float]]:
    """Return the reports of the untuned and the tuned model."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)

    def falcon_job(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "falcon_job", *arguments], cwd=clone, check=True)

    falcon_job("preset", PRESET)
    falcon_job("data", "--train", str(squad / "train.json"), "--dev", str(squad / "dev.json"))
    shutil.copytree(model, clone / "data" / PRESET)
    falcon_job("run")
    return {
        name: json.loads((clone / "reports" / f"{file}.json").read_text(encoding="utf-8"))
        for name, file in (("untuned", "baseline"), ("tuned", "eval"))
    }


def failures(untuned: Mapping[str, float], tuned: Mapping[str, float], abstained: int) -> list[str]:
    """Return the signs that the model has not learned; none if it has."""
    gain = tuned["has_ans_f1"] - untuned["has_ans_f1"]
    problems = []
    if gain < CLEAR_GAIN:
        problems.append(f"F1 on answerable questions rose by {gain:.1f} points, less than {CLEAR_GAIN:.0f}")
    if not 0 < abstained < tuned["total"]:
        problems.append(f"abstained on {abstained} of {tuned['total']:.0f} questions")
    return problems


@click.command(help=__doc__)
@click.argument("squad", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(squad: Path, model: Path) -> None:
    """Run `smoke_real`; exit 1 if the model has not learned."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "falcon_job"
        reports = smoke_real(squad.resolve(), model.resolve(), clone)
        predictions = json.loads((clone / "build" / "predictions.json").read_text(encoding="utf-8"))
    abstained = sum(not answer for answer in predictions.values())
    click.echo(f"abstained on {abstained} of {len(predictions)}")
    if problems := failures(reports["untuned"], reports["tuned"], abstained):
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
