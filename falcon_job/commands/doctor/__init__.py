"""`falcon-job doctor`: does the job run here, and what to do where it does not.

Every check is a function that looks at one thing and returns a `Finding`; what it raises becomes its line.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from falcon_job.commands.doctor.clone import check_dvc, check_git, check_params, check_settings
from falcon_job.commands.doctor.compiler import check_compiler
from falcon_job.commands.doctor.finding import Finding, Surroundings, look_around, problem
from falcon_job.commands.doctor.folders import check_disk, check_folders
from falcon_job.commands.doctor.gpu import check_bitsandbytes, check_gpu, check_torch, check_triton
from falcon_job.commands.doctor.host import check_cores, check_memory, check_shared_memory
from falcon_job.commands.doctor.nvidia import check_driver
from falcon_job.commands.doctor.packages import check_packages, check_python
from falcon_job.commands.doctor.weights import check_weights
from falcon_job.errors import MachineError, first_line

Check = Callable[[Surroundings], Finding]

CHECKS: tuple[Check, ...] = (
    check_python,
    check_packages,
    check_torch,
    check_driver,
    check_gpu,
    check_bitsandbytes,
    check_triton,
    check_compiler,
    check_memory,
    check_shared_memory,
    check_cores,
    check_disk,
    check_folders,
    check_git,
    check_dvc,
    check_settings,
    check_params,
    check_weights,
)
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(*, as_json: bool) -> None:
    """Print a line for each check; exit with 3 when the job cannot run here."""
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no part of the report
        findings = examine(CHECKS, look_around())
    fine = all(finding.status != "problem" for finding in findings.values())
    if as_json:
        checks = [{"name": name, **asdict(finding)} for name, finding in findings.items()]
        click.echo(json.dumps({"ok": fine, "checks": checks}, indent=2))
    else:
        _print(findings)
    if not fine:
        sys.exit(MachineError.exit_code)


def examine(checks: Iterable[Check], here: Surroundings) -> dict[str, Finding]:
    """Return what each check found, by its name."""
    return {check.__name__.removeprefix("check_").replace("_", " "): _outcome(check, here) for check in checks}


def _outcome(check: Check, here: Surroundings) -> Finding:
    try:
        return check(here)
    except Exception as error:  # a broken library raises anything, and the other checks are still worth their lines
        return problem(
            f"the check failed ({type(error).__name__}: {first_line(error)})",
            "mend what it names; if that is unclear, report this line",
        )


def _print(findings: dict[str, Finding]) -> None:
    """Print columns that wrap on a terminal, elsewhere a line a check, however long."""
    console = Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    for name, finding in findings.items():
        status = Text(finding.status, STYLES[finding.status])
        said = f"{finding.found}: {finding.fix}" if finding.fix else finding.found
        if console.is_terminal:
            table.add_row(status, name, Text(said))
        else:
            console.print(f"{finding.status:<9}{name:<15}{said}", soft_wrap=True, markup=False, emoji=False)
    if console.is_terminal:
        console.print(table)
