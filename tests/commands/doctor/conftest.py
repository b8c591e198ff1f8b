"""A folder like a clone, and doctor run in it by a process of its own: libraries read variables at import."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[3]
ONE_CHECK = """
import dataclasses, json, sys
from falcon_job.commands import doctor
from falcon_job.commands.doctor.finding import look_around
(finding,) = doctor.examine((getattr(doctor, sys.argv[1]),), look_around()).values()
print(json.dumps(dataclasses.asdict(finding)))
"""


@dataclass
class Place:
    """A folder, and what a person types in it."""

    folder: Path
    env: dict[str, str]

    def call(self, *command: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=120)

    def doctor(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return self.call(sys.executable, "-m", "falcon_job", "doctor", *arguments, **env)

    def finding(self, check: str, **env: str) -> tuple[str, str, str | None]:
        """Return status, what was found and what to do, of one check alone."""
        done = self.call(sys.executable, "-c", ONE_CHECK, f"check_{check}", **env)
        assert done.returncode == 0, done.stderr
        return tuple(json.loads(done.stdout).values())

    def set_model(self, **values: str | None) -> None:
        yaml = YAML()
        params = yaml.load(self.folder / "params.yaml")
        params["model"].update(values)
        yaml.dump(params, self.folder / "params.yaml")


@pytest.fixture
def env(tmp_path) -> dict[str, str]:
    """A machine without this user's settings, caches and GPUs."""
    dropped = ("GIT_", "DVC_", "FALCON_JOB_", "HF_", "TRITON_", "TORCHINDUCTOR_", "PYTHONPATH", "TMPDIR", "CC", "CUDA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }


@pytest.fixture
def clone(tmp_path, env) -> Place:
    """The files of a clone that doctor reads, in a git repository."""
    folder = tmp_path / "clone"
    (folder / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", "pyproject.toml", ".dvc/config"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "data" / "falcon-tiny", folder / "data" / "falcon-tiny")
    place = Place(folder, env)
    place.set_model(source="data/falcon-tiny", revision=None, precision="fp32")
    assert place.call("git", "init", "--quiet").returncode == 0
    return place


@pytest.fixture
def elsewhere(tmp_path, env) -> Place:
    """An empty folder outside any clone."""
    (tmp_path / "empty").mkdir()
    return Place(tmp_path / "empty", env)
