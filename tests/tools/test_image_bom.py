import json
import platform
import shutil
import venv
from pathlib import Path

import pytest
from click.testing import CliRunner
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from debian.copyright import Header
from rich.console import Console

from tools import image_bom

STATUS = """
Package: libfine1
Status: install ok installed
Architecture: amd64
Version: 1:2.0-3+b1
Description: fine
Maintainer: nobody

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
Description: gone
Maintainer: nobody

Package: prose
Status: install ok installed
Architecture: all
Version: 4
Description: prose
Maintainer: nobody
"""
COPYRIGHT = f"""Format: {Header().format}

Files: *
Copyright: nobody
License: GPL-2+

Files: lib/*
Copyright: nobody
License: BSD-3-clause

License: GPL-2+
 Long text.
"""

with_dpkg = pytest.mark.skipif(not shutil.which("dpkg-query"), reason="no dpkg here")


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory) -> Path:
    """Return the Python of an environment with three packages that declare their licences in different ways."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name, licence in (
        ("stated", "License-Expression: MIT OR Apache-2.0"),
        ("classified", "Classifier: License :: OSI Approved :: BSD License"),
        ("silent", "Summary: says nothing"),
    ):
        info = site / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.5\n{licence}\n")
    return folder / "bin" / "python"


@pytest.fixture
def doc(tmp_path, monkeypatch) -> Path:
    """Give dpkg a few packages and return the folder with their copyright files."""
    (tmp_path / "dpkg" / "updates").mkdir(parents=True)
    (tmp_path / "dpkg" / "status").write_text(STATUS)
    monkeypatch.setenv("DPKG_ADMINDIR", str(tmp_path / "dpkg"))
    for name, text in (("libfine1", COPYRIGHT), ("prose", "Written by friendly people.\n")):
        (tmp_path / "doc" / name).mkdir(parents=True)
        (tmp_path / "doc" / name / "copyright").write_text(text)
    return tmp_path / "doc"


def names(component: Component) -> set[str]:
    return image_bom.licence_names(component)


def test_python_packages_come_with_version_licence_and_purl(interpreter):
    packages = {each.name: each for each in image_bom.python_packages(interpreter).components}
    assert {each.purl.to_string() for each in packages.values()} == {
        "pkg:pypi/stated@1.5",
        "pkg:pypi/classified@1.5",
        "pkg:pypi/silent@1.5",
    }
    assert names(packages["stated"]) == {"MIT OR Apache-2.0"}
    assert names(packages["classified"]) == {"BSD License"}
    assert names(packages["silent"]) == {"not machine-readable"}


def test_an_interpreter_that_does_not_run_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="cyclonedx_py failed"):
        image_bom.python_packages(tmp_path / "nothing")


@with_dpkg
def test_installed_debian_packages_come_with_version_licence_and_purl(doc):
    packages = {each.name: each for each in image_bom.debian_packages(doc)}
    assert set(packages) == {"libfine1", "prose"}, "`gone` is removed but for its settings"
    fine = packages["libfine1"]
    assert fine.version == "1:2.0-3+b1"
    system = platform.freedesktop_os_release()["ID"]
    assert fine.purl.to_string().startswith(f"pkg:deb/{system}/libfine1@1:2.0-3%2Bb1?arch=amd64")
    assert names(fine) == {"GPL-2+", "BSD-3-Clause"}


@with_dpkg
def test_a_debian_package_without_a_readable_copyright_has_no_licence(doc):
    (prose,) = (each for each in image_bom.debian_packages(doc) if each.name == "prose")
    assert not prose.licenses
    shutil.rmtree(doc)
    assert not [each for each in image_bom.debian_packages(doc) if each.licenses]


def test_without_dpkg_only_python_packages_are_listed(interpreter, doc, monkeypatch):
    monkeypatch.setenv("PATH", str(interpreter.parent))
    assert {each.purl.type for each in image_bom.bill(interpreter, doc).components} == {"pypi"}


@pytest.mark.parametrize(("name", "identifier"), [("Apache-2.0", "Apache-2.0"), ("BSD-3-clause", "BSD-3-Clause")])
def test_an_spdx_id_is_written_as_an_id(name, identifier):
    assert image_bom.licence(name).id == identifier


def test_a_licence_name_that_only_debian_uses_stays_a_name():
    assert image_bom.licence("GPL-2+ or Artistic").name == "GPL-2+ or Artistic"


@with_dpkg
def test_the_command_writes_a_valid_document_and_a_table_of_licences(interpreter, doc):
    result = CliRunner().invoke(image_bom.main, [str(interpreter)])
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(result.stdout) is None
    assert {each["name"] for each in content["components"]} == {"stated", "classified", "silent", "libfine1", "prose"}
    project = content["metadata"]["component"]
    assert project["name"] == "falcon-job"
    (needs,) = (each["dependsOn"] for each in content["dependencies"] if each["ref"] == project["bom-ref"])
    assert {each.partition("@")[0] for each in needs} >= {f"pkg:deb/{platform.freedesktop_os_release()['ID']}/prose"}
    assert "3 Python packages, 2 Debian packages" in result.stderr


@with_dpkg
def test_equal_packages_give_equal_documents_but_for_serial_and_time(interpreter, doc):
    def stable() -> str:
        content = json.loads(image_bom.document(image_bom.bill(interpreter, doc)))
        del content["serialNumber"], content["metadata"]["timestamp"]
        return json.dumps(content)

    assert stable() == stable()


def test_a_document_that_breaks_the_schema_is_not_written():
    with pytest.raises(SystemExit, match="does not follow CycloneDX's schema"):
        image_bom.document(Bom(components=[Component(name="odd", mime_type="no type")]))


def test_a_classifier_counts_only_if_nothing_else_names_the_licence():
    classifier = DisjunctiveLicense(name="License :: OSI Approved :: MIT License")
    assert names(Component(name="a", licenses=[classifier])) == {"MIT License"}
    assert names(Component(name="b", licenses=[classifier, DisjunctiveLicense(id="MIT")])) == {"MIT"}
    assert names(Component(name="c", licenses=[LicenseExpression("MIT OR ISC")])) == {"MIT OR ISC"}


def test_the_table_lists_the_most_frequent_licences_and_counts_the_rest():
    licences = [DisjunctiveLicense(name=f"L{number:02}\nand its text") for number in range(30)]
    components = [Component(name="all", licenses=licences), Component(name="one", licenses=licences[-1:])]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(image_bom.licence_table(components))
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in capture.get().splitlines() if "│" in line]
    assert rows[0] == ["L29", "2"]
    assert rows[1] == ["L00", "1"]
    assert rows[-1] == ["10 more", ""]
    assert len(rows) == image_bom.IN_TABLE + 1
