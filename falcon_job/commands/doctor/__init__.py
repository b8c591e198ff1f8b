"""`falcon-job doctor`: check whether the job can run on this machine, and say how to fix what is wrong.

A check is a function that looks at one thing and returns a `Finding`. An error that it raises becomes its finding.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict

import click

from falcon_job.commands.doctor.clone import check_dvc, check_git, check_params, check_settings, check_weights
from falcon_job.commands.doctor.finding import Finding, Surroundings, look_around, problem
from falcon_job.commands.doctor.gpu import check_bitsandbytes, check_driver, check_gpu, check_torch
from falcon_job.commands.doctor.host import check_disk, check_folders, check_memory, check_shared_memory
from falcon_job.commands.doctor.python import check_compiler, check_packages
from falcon_job.errors import JobError, MachineError, first_line

Check = Callable[[Surroundings], Finding]

CHECKS: tuple[Check, ...] = (
    *(check_packages, check_compiler),
    *(check_torch, check_driver, check_gpu, check_bitsandbytes),
    *(check_memory, check_shared_memory, check_disk, check_folders),
    *(check_git, check_dvc, check_settings, check_params, check_weights),
)


def doctor(*, as_json: bool) -> None:
    """Print one line per check. Exit with 3 if the job cannot run here."""
    with contextlib.redirect_stdout(sys.stderr):  # keeps the output of libraries out of the report
        findings = examine(CHECKS, look_around())
    fine = all(finding.status != "problem" for finding in findings.values())
    if as_json:
        checks = [{"name": name, **asdict(finding)} for name, finding in findings.items()]
        click.echo(json.dumps({"ok": fine, "checks": checks}, indent=2))
    else:
        for name, finding in findings.items():
            advice = f": {finding.fix}" if finding.fix else ""
            click.echo(f"{finding.status:<9}{name:<15}{finding.found}{advice}")
    if not fine:
        sys.exit(MachineError.exit_code)


def examine(checks: Iterable[Check], here: Surroundings) -> dict[str, Finding]:
    """Return the finding of each check, by the name of the check."""
    return {check.__name__.removeprefix("check_").replace("_", " "): _run(check, here) for check in checks}


def _run(check: Check, here: Surroundings) -> Finding:
    try:
        return check(here)
    except JobError as error:
        return problem(error)
    except Exception as error:  # a broken library may raise anything, and the other checks must still run
        said = f"{type(error).__name__}: {first_line(error)}"
        return Finding("problem", f"the check failed ({said})", "fix what it names, or report this line")
