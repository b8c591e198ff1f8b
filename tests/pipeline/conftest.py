"""Real clones for the tests of the pipeline: one runs once per session, and every test works on a copy of it."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
SHORT = {
    "model.source": "data/falcon-tiny",
    "preprocess.limit": 40,
    "train.epochs": 3,
    "train.questions_per_step": 8,
    "train.logging_steps": 1,
    "evaluate.limit": 12,
    "export.verify": 4,
}
"""Params with which a whole run takes little longer than its imports."""
SECONDS_OF_THE_SLOWEST_STEP = 180


@dataclass
class Clone:
    """A clone, and the commands that a person would run in it."""

    root: Path
    env: dict[str, str]

    def copy(self, folder: Path) -> "Clone":
        shutil.copytree(self.root, folder / "clone", symlinks=True)
        return Clone(folder / "clone", self.env)

    def call(
        self, *command: str, folder: str = ".", check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.root / folder,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=SECONDS_OF_THE_SLOWEST_STEP,
        )
        assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def git(self, *arguments: str, **options: Any) -> str:
        return self.call("git", *arguments, **options).stdout

    def dvc(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.call(sys.executable, "-m", "dvc", *arguments, **options)

    def job(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.call(sys.executable, "-m", "falcon_job", *arguments, **options)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `falcon-job` and leave it running; `output` returns what it has printed so far."""
        with (self.root / "scratch" / "output").open("wb") as output:
            command = [sys.executable, "-m", "falcon_job", *arguments]
            return subprocess.Popen(command, cwd=self.root, env=self.env, stdout=output, stderr=subprocess.STDOUT)

    def output(self) -> str:
        return (self.root / "scratch" / "output").read_text(encoding="utf-8", errors="replace")

    def wait_for(self, happened: Callable[[], object]) -> None:
        """Wait until something has happened."""
        give_up = time.monotonic() + SECONDS_OF_THE_SLOWEST_STEP
        while not happened():
            assert time.monotonic() < give_up, self.output()
            time.sleep(0.01)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that run in this clone."""
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def stage_process(self, stage: str) -> psutil.Process | None:
        """Return the process of a stage while it runs."""
        for process in self.processes():
            try:
                if process.cmdline()[1:] == ["-m", "falcon_job", stage]:
                    return process
            except psutil.Error:
                continue
        return None

    def set_params(self, **values: object) -> None:
        """Change keys of params.yaml: `train__epochs=3`."""
        yaml = YAML()
        params = yaml.load(self.root / "params.yaml")
        for name, value in values.items():
            group, key = name.split("__")
            assert key in params[group]
            params[group][key] = value
        yaml.dump(params, self.root / "params.yaml")

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def read(self, relative: str) -> bytes:
        return (self.root / relative).read_bytes()


def ran(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the stages that `dvc repro` ran, in order."""
    return re.findall(r"^Running stage '(\w+)'", done.stdout, flags=re.MULTILINE)


@pytest.fixture(name="ran", scope="session")
def _ran() -> Callable[[subprocess.CompletedProcess[str]], list[str]]:
    return ran


@pytest.fixture(scope="session")
def clone_env(tmp_path_factory) -> dict[str, str]:
    """An environment without settings of this user and without a network, whose `python` is this one."""
    home = tmp_path_factory.mktemp("home")
    dropped = ("GIT_", "DVC_", "FALCON_JOB_", "HF_", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    identity = {f"GIT_{role}_{key}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return {
        **env,
        **identity,
        **proxies,
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "OMP_NUM_THREADS": "1",
        "SHELL": "/bin/sh",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }


@pytest.fixture(scope="session")
def _pristine(tmp_path_factory, clone_env) -> Clone:
    """A clone of the working tree, all of it committed, with short params; nothing is pulled and nothing has run."""
    clone = Clone(tmp_path_factory.mktemp("pristine") / "clone", clone_env)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("reports/"):
            (clone.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone.root / name)
    clone.set_params(**{key.replace(".", "__"): value for key, value in SHORT.items()})
    clone.git("init", "--quiet")
    clone.git("add", "--all", "--force")
    clone.commit("all")
    return clone


@dataclass
class Trained:
    """A clone with a finished, committed run, and what the run printed."""

    clone: Clone
    first_run: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, _pristine) -> Trained:
    """The one whole run, started in a subfolder of a clone without data/. Tests work on copies of it."""
    clone = _pristine.copy(tmp_path_factory.mktemp("trained"))
    first_run = clone.job("run", folder="tests/pipeline", PYTHONPATH=str(clone.root))
    clone.commit("run")
    return Trained(clone, first_run)


@dataclass
class Experiment:
    """Two commits of a clone: a run, and one with another learning rate that `dvc exp run` made."""

    clone: Clone
    exp_run: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def experiment(tmp_path_factory, trained) -> Experiment:
    clone = trained.clone.copy(tmp_path_factory.mktemp("experiment"))
    exp_run = clone.dvc("exp", "run", "--set-param", "train.learning_rate=0.00001")
    clone.commit("lower learning rate")
    return Experiment(clone, exp_run)


@pytest.fixture
def pristine_clone(tmp_path, _pristine) -> Iterator[Clone]:
    """A fresh clone."""
    clone = _pristine.copy(tmp_path)
    yield clone
    _end(clone)


@pytest.fixture
def clone(tmp_path, trained) -> Iterator[Clone]:
    """A copy of the clone that has run, cache included."""
    clone = trained.clone.copy(tmp_path)
    yield clone
    _end(clone)


def _end(clone: Clone) -> None:
    """Kill what a failed test has left running in its clone."""
    for process in clone.processes():
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
