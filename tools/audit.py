"""Look up everything that requirements.lock pins in the OSV database of known vulnerabilities, with pip-audit's code.

    python -m tools.audit

Exits 1 with a table if there are vulnerabilities, and 0 if there are none. If the database cannot be reached, it says
why and exits 0. PIP_AUDIT_OSV_URL sets another address of the database, as for pip-audit.

It audits the lock rather than this environment: the lock has the pins of every platform, and a published version of
torch. It does not run pip-audit's own command, for three reasons. The command exits 1 both for a vulnerability and for
a broken connection; it leaves out the pins of other platforms; and it asks the package index, so a mirror without
vulnerability data looks like a clean result.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import click
import requests
from packaging.requirements import Requirement
from packaging.version import Version
from pip_audit._audit import Auditor
from pip_audit._dependency_source import DependencySource
from pip_audit._format import ColumnsFormat
from pip_audit._service import ConnectionError as NoConnection
from pip_audit._service import Dependency, OsvService, ResolvedDependency, VulnerabilityResult

ROOT = Path(__file__).parents[1]
URL = "PIP_AUDIT_OSV_URL"
TIMEOUT = 15
"""Seconds to wait for each response."""
ACCEPTED = {
    "CVE-2025-69872": "diskcache, which DVC needs, has no fixed release; it needs write access to DVC's cache folders",
}
"""Vulnerabilities that do not fail the audit, and why."""

Found = dict[Dependency, list[VulnerabilityResult]]


class Lock(DependencySource):  # type: ignore[misc]
    """The pins of a lock file, for all platforms."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        self.pins = [pin(Requirement(line)) for line in lines if not line.startswith("#")]

    def collect(self) -> Iterator[Dependency]:
        """Return all pins."""
        return iter(self.pins)

    def fix(self, fix_version: object) -> None:
        """Refuse: `make lock` writes the lock."""
        raise NotImplementedError


def pin(requirement: Requirement) -> Dependency:
    """Return the one version that a line of the lock file allows."""
    (specifier,) = requirement.specifier
    return ResolvedDependency(requirement.name, Version(specifier.version))


def unreachable(service: OsvService, lock: Lock) -> str | None:
    """Return why the database cannot be reached, or None if it can. Any other failure raises its own error."""
    try:
        service.query(lock.pins[0])
    except (NoConnection, requests.ConnectionError, requests.Timeout) as error:
        return " ".join(str(error).split())
    return None


def audit(service: OsvService, lock: Lock) -> tuple[Found, set[str]]:
    """Return each pin's vulnerabilities that are not accepted, and the names of the accepted ones that were found."""
    found, accepted = {}, set()
    for each, vulnerabilities in Auditor(service).audit(lock):
        known = {name for name in ACCEPTED for one in vulnerabilities if one.has_any_id({name})}
        found[each] = [one for one in vulnerabilities if not one.has_any_id(known)]
        accepted |= known
    return found, accepted


@click.command(help=__doc__)
@click.option(
    "--lock", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=ROOT / "requirements.lock"
)
def main(lock: Path) -> None:
    """Run `audit`; exit 1 if it finds a vulnerability that is not accepted."""
    pins = Lock(lock)
    # The cache folder stays empty, since responses to POST are not cached. Naming one makes a home folder unnecessary.
    service = OsvService(ROOT / "scratch" / "audit", TIMEOUT, os.environ.get(URL, OsvService.DEFAULT_OSV_URL))
    if reason := unreachable(service, pins):
        click.echo(f"audit skipped: {reason}")
        return
    found, accepted = audit(service, pins)
    for name in sorted(accepted):
        click.echo(f"accepted: {name}, {ACCEPTED[name]}")
    if count := sum(map(len, found.values())):
        click.echo(ColumnsFormat(output_desc=False, output_aliases=True).format(found, []))
        raise SystemExit(f"vulnerabilities: {count} in {lock.name}")
    click.echo(f"no {'other ' if accepted else ''}known vulnerabilities in {len(found)} pins")


if __name__ == "__main__":
    main()
