"""The table at the end of a run: scores beside the untuned model, where files lie, time per stage."""

from typing import Any

from rich.console import Console
from rich.table import Table

from falcon_job.files import read_json
from falcon_job.params import Params
from falcon_job.workspace import Workspace

SCORES = {
    "exact": "exact",
    "f1": "F1",
    "has_ans_f1": "F1, answerable",
    "no_ans_f1": "F1, unanswerable",
    "always_abstain_f1": "F1 of always abstaining",
}
PLACES = {
    "adapter": "build/adapter",
    "predictions": "build/predictions.json",
    "samples to read": "build/samples.json",
    "reports": "reports",
    "export": "build/export",
}
STAGES = ("fetch", "preprocess", "baseline", "train", "evaluate", "export")


def print_summary(params: Params, workspace: Workspace) -> None:
    """Print the results of the last run; what is missing is left out."""
    console = Console(highlight=False)
    tuned = _read(workspace, "reports/eval.json")
    untuned = _read(workspace, "reports/baseline.json")
    total = (tuned or untuned).get("total")
    questions = f" on {total:.0f} dev questions" if total else ", not scored yet"
    console.print(f"{params.model.source} ({params.model.precision}){questions}", soft_wrap=True)
    scores = Table()
    for heading in ("percent", "untuned", "tuned"):
        scores.add_column(heading, justify="left" if heading == "percent" else "right")
    for key, name in SCORES.items():
        if key in tuned or key in untuned:
            scores.add_row(name, *(f"{numbers[key]:.2f}" if key in numbers else "-" for numbers in (untuned, tuned)))
    if scores.row_count:
        console.print(scores)
    for name, place in PLACES.items():
        if workspace.path(place).exists():
            console.print(f"{name:<16}{place}")
    times = {stage: _read(workspace, f"scratch/times/{stage}.json").get("seconds") for stage in STAGES}
    known = [f"{stage} {seconds:.1f}" for stage, seconds in times.items() if seconds is not None]
    console.print(f"{'seconds':<16}{', '.join(known)}", soft_wrap=True)


def _read(workspace: Workspace, relative: str) -> dict[str, Any]:
    path = workspace.path(relative)
    numbers: dict[str, Any] = read_json(path) if path.is_file() else {}
    return numbers
