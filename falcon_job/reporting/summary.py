"""The summary at the end of a run: scores before and after tuning, paths of the results, seconds per stage."""

from typing import Any

from rich.console import Console
from rich.table import Table

from falcon_job.files import read_json
from falcon_job.params import Params
from falcon_job.pipeline import STAGES
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


def print_summary(params: Params, workspace: Workspace) -> None:
    """Print the results of the last run. Results that do not exist are left out."""
    console = Console(highlight=False)
    untuned, tuned = (_read(workspace, f"reports/{name}.json") for name in ("baseline", "eval"))
    total = (tuned or untuned).get("total")
    questions = f" on {total:.0f} dev questions" if total else ", not scored yet"
    console.print(f"{params.model.source} ({params.model.precision}){questions}", soft_wrap=True)
    scores = _score_table(untuned, tuned)
    if scores.row_count:
        console.print(scores)
    for name, place in PLACES.items():
        if workspace.path(place).exists():
            console.print(f"{name:<16}{place}")
    console.print(f"{'seconds':<16}{_seconds(workspace)}", soft_wrap=True)


def _score_table(untuned: dict[str, Any], tuned: dict[str, Any]) -> Table:
    table = Table()
    for heading in ("percent", "untuned", "tuned"):
        table.add_column(heading, justify="left" if heading == "percent" else "right")
    for key, name in SCORES.items():
        if key in tuned or key in untuned:
            table.add_row(name, *(f"{numbers[key]:.2f}" if key in numbers else "-" for numbers in (untuned, tuned)))
    return table


def _seconds(workspace: Workspace) -> str:
    """Return how long each stage took when it last ran: "fetch 0.1, preprocess 1.1"."""
    times = {stage: _read(workspace, f"scratch/times/{stage}.json").get("seconds") for stage in STAGES}
    return ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in times.items() if seconds is not None)


def _read(workspace: Workspace, relative: str) -> dict[str, Any]:
    """Read a JSON file of the workspace; {} if there is none."""
    path = workspace.path(relative)
    numbers: dict[str, Any] = read_json(path) if path.is_file() else {}
    return numbers
