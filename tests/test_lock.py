import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LINES = [
    line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
LOCKED = {canonicalize_name(r.name): r for r in map(Requirement, LINES) if not r.marker or r.marker.evaluate()}
# torch's own metadata pins its CUDA packages, on the builds that have them
OF_TORCH = re.compile(r"nvidia-|cuda-|triton")


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["dev"]])
    return [each for each in requirements if not each.marker or each.marker.evaluate()]


def pinned(name):
    (specifier,) = LOCKED[canonicalize_name(name)].specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_the_lock_satisfies_what_pyproject_declares(requirement):
    assert pinned(requirement.name) in requirement.specifier


def test_the_lock_holds_all_that_its_packages_need():
    missing = []
    for name in LOCKED:
        for line in requires(name) or []:
            need = Requirement(line)
            if (
                OF_TORCH.match(need.name)
                or need.name == "pip"
                or (need.marker and not need.marker.evaluate({"extra": ""}))
            ):
                continue
            if canonicalize_name(need.name) not in LOCKED or pinned(need.name) not in need.specifier:
                missing.append(f"{name} needs {need}")
    assert not missing


@pytest.mark.container
def test_this_environment_is_the_locked_one():
    differing = {}
    for name in LOCKED:
        try:
            installed = Version(version(name).split("+")[0])
        except PackageNotFoundError:
            installed = None
        if installed != pinned(name):
            differing[name] = installed
    assert not differing


def test_the_lock_names_no_build_of_torch_and_no_cuda_packages():
    """The index of the machine decides which build is installed, and the build brings its CUDA packages."""
    assert "torch==2.13.0" in LINES
    assert not [line for line in LINES if OF_TORCH.match(line)]


def test_the_lock_leaves_pip_out():
    """On Windows, a running pip cannot replace itself."""
    assert not [line for line in LINES if canonicalize_name(Requirement(line).name) == "pip"]


def test_the_lock_names_no_host_and_no_hash():
    assert not [line for line in LINES if "://" in line or line.startswith("-") or "--hash" in line]
