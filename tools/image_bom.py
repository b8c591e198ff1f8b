"""Write a bill of materials to stdout, as CycloneDX JSON: this environment's Python packages and all Debian packages.

    python -m tools.image_bom > bom.json

`make image-bom` runs it inside the image. A table of licences, with counts, goes to stderr. Versions and licences are
those that the packages declare. A Debian package whose copyright file is free text is listed without a licence. Two
runs on the same packages differ only in serial number and time. Without dpkg, only Python packages are listed.
"""

import json
import logging
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement, LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.spdx import fixup_id
from cyclonedx.validation.json import JsonStrictValidator
from debian.copyright import Copyright, Error
from packageurl import PackageURL
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
DOC = Path("/usr/share/doc")
VERSION = SchemaVersion.V1_6
CLASSIFIER = "License :: "
IN_TABLE = 20
"""How many licences the table lists by name."""


def python_packages(interpreter: Path) -> Bom:
    """Return the packages of an interpreter's environment, with this project as the root component."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
    # `document` validates the whole bill once.
    done = subprocess.run([*command, "--no-validate", str(interpreter)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"cyclonedx_py failed:\n{done.stderr}")
    bom: Bom = Bom.from_json(json.loads(done.stdout))  # type: ignore[attr-defined]
    return bom


def debian_packages(doc: Path) -> list[Component]:
    """Return the installed Debian packages, or an empty list without dpkg."""
    if not shutil.which("dpkg-query"):
        return []
    fields = "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"
    done = subprocess.run(["dpkg-query", "--show", "-f", fields], capture_output=True, text=True, check=True)
    system = platform.freedesktop_os_release()
    purls = [
        PackageURL("deb", system["ID"], name, version, {"arch": arch, "distro": system.get("VERSION_CODENAME", "")})
        for state, name, version, arch in map(str.split, done.stdout.splitlines())
        if state == "installed"
    ]
    return [debian_package(purl, doc) for purl in purls]


def debian_package(purl: PackageURL, doc: Path) -> Component:
    """Return one Debian package with its licences."""
    return Component(
        name=purl.name,
        version=purl.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        licenses=map(licence, debian_licences(doc / purl.name / "copyright")),
    )


def debian_licences(copyright_file: Path) -> set[str]:
    """Return the licences that a copyright file names; none if it is missing or free text."""
    try:
        with copyright_file.open(encoding="utf-8", errors="replace") as lines:
            paragraphs = Copyright(lines, strict=False).all_files_paragraphs()
            licences = [each.license for each in paragraphs if each.license]
            return {each.synopsis for each in licences if each.synopsis}  # type: ignore[attr-defined]
    except (FileNotFoundError, Error):
        return set()


def licence(name: str) -> DisjunctiveLicense:
    """Return a licence by its SPDX id if it has one. Debian also uses names that SPDX does not have."""
    declared = LicenseAcknowledgement.DECLARED
    if identifier := fixup_id(name):
        return DisjunctiveLicense(id=identifier, acknowledgement=declared)
    return DisjunctiveLicense(name=name, acknowledgement=declared)


def document(bom: Bom) -> str:
    """Return a bill of materials as JSON.

    Raises:
        SystemExit: the JSON does not follow CycloneDX's schema.
    """
    text = make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string(indent=2)
    if problem := JsonStrictValidator(VERSION).validate_str(text):
        raise SystemExit(f"the bill of materials does not follow CycloneDX's schema: {problem}")
    return text


def licence_names(component: Component) -> set[str]:
    """Return the names of a component's licences; classifiers count only if nothing else names one."""
    names = {
        each.value if isinstance(each, LicenseExpression) else each.id or each.name or "" for each in component.licenses
    }
    precise = {name for name in names if not name.startswith(CLASSIFIER)}
    return precise or {name.rpartition(" :: ")[2] for name in names} or {"not machine-readable"}


def licence_table(components: Iterable[Component]) -> Table:
    """Return the most frequent licences with the number of packages that name them."""
    counts = Counter(name for component in components for name in licence_names(component))
    table = Table("licence", "packages")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:IN_TABLE]:
        table.add_row(name.partition("\n")[0], str(count))
    if rarer := len(counts) - IN_TABLE:
        table.add_row(f"{rarer} more")
    return table


def bill(interpreter: Path, doc: Path = DOC) -> Bom:
    """Return a bill of the Python packages in an interpreter's environment and of all Debian packages."""
    bom = python_packages(interpreter)
    packages = debian_packages(doc)
    bom.components.update(packages)
    assert bom.metadata.component, "pyproject.toml names it"
    bom.register_dependency(bom.metadata.component, packages)
    return bom


@click.command(help=__doc__)
@click.argument("interpreter", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=sys.executable)
def main(interpreter: Path) -> None:
    """Write the bill of an interpreter's environment; the default is this one."""
    logging.getLogger("debian.copyright").setLevel(logging.ERROR)  # it warns about old addresses of the format
    bom = bill(interpreter)
    click.echo(document(bom))
    console = Console(stderr=True)
    console.print(licence_table(bom.components))
    kinds = Counter(each.purl.type for each in bom.components if each.purl)
    console.print(f"{kinds['pypi']} Python packages, {kinds['deb']} Debian packages")


if __name__ == "__main__":
    main()
