"""The command line as people and schedulers see it: instant help, one clear message per error, exit codes."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from falcon_job import __version__
from falcon_job.cli import cli
from falcon_job.pipeline import STAGES

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "datasets",
    "pyarrow",
    "numpy",
    "evaluate",
    "accelerate",
    "dvc",
    "bitsandbytes",
}
COMMANDS = sorted(cli.commands)


@pytest.fixture
def workspace(tmp_path) -> Path:
    """A folder with the settings of a clone and nothing else."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    return tmp_path


def call(*command: str, folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), **env})


def job(*arguments: str, folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", "falcon_job", *arguments, folder=folder, **env)


def imported_by(*arguments: str, folder: Path = ROOT) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Return what a command did and the top-level packages it imported."""
    done = call(sys.executable, "-X", "importtime", "-m", "falcon_job", *arguments, folder=folder)
    names = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "falcon_job.cli" in names
    return done, {name.partition(".")[0] for name in names}


def test_help_names_every_command_and_imports_nothing_heavy():
    done, names = imported_by("--help")
    assert done.returncode == 0
    assert not names & HEAVY
    assert not names & {"pydantic", "rich", "psutil", "ruamel"}
    for command in COMMANDS:
        assert re.search(rf"^  {command}  ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    done = job(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ")


def test_without_arguments_the_help_is_printed_and_the_code_is_2():
    done = job()
    assert done.returncode == 2
    assert "Usage: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_printed():
    assert job("--version").stdout.strip().endswith(__version__)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such command 'trian'"),
        (["run", "trian"], "'trian' is not one of"),
        (["run", "train", "evaluate"], "unexpected extra argument"),
        (["train", "--epochs", "3"], "No such option"),
        (["train", "now"], "unexpected extra argument"),
        (["--verbose"], "No such option"),
        (["data"], "Missing option '--train'"),
        (["data", "--train"], "requires an argument"),
        (["preset", "demo", "seed"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_gives_2_and_says_what_is_wrong(arguments, said):
    done = job(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("arguments", [["run"], ["train"], ["summary"], ["preset"], ["preset", "demo"]])
def test_outside_a_clone_one_line_says_so(arguments, tmp_path):
    done = job(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "is not inside a clone of falcon_job" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "summary", *STAGES])
def test_bad_params_give_2_before_anything_heavy_is_imported(workspace, command):
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("learning_rate:", "learning_rat:").replace("epochs: ", "epochs: -"))
    done, names = imported_by(command, folder=workspace)
    assert done.returncode == 2
    assert not names & HEAVY
    error = done.stderr[done.stderr.index("Error: ") :]
    assert error.splitlines()[0].endswith("params.yaml has 3 problems")
    assert "train.learning_rat is not a known key: did you mean train.learning_rate?" in error
    assert "train.epochs" in error
    assert "Traceback" not in error
    assert sorted(path.name for path in workspace.iterdir()) == ["dvc.yaml", "params.yaml", "presets"]


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize("place", ["the environment", ".env"])
def test_a_misspelled_machine_setting_gives_2_before_anything_runs(workspace, command, place):
    if place == ".env":
        (workspace / ".env").write_text("FALCON_JOB_ATENTION=sdpa\n")
    env = {"FALCON_JOB_ATENTION": "sdpa"} if place == "the environment" else {}
    done = job(command, folder=workspace, **env)
    assert done.returncode == 2
    assert "FALCON_JOB_ATENTION is not a known variable: did you mean FALCON_JOB_ATTENTION?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not (workspace / "scratch").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "params.yaml is missing: write one with `falcon-job preset demo`"),
        (b"", "must hold groups of keys"),
        (b"- 1\n", "must hold groups of keys"),
        (b"a: b: c\n", "is not valid YAML"),
        (b"\xff\xfe", "is not valid YAML"),
    ],
)
def test_a_broken_params_file_gives_2_and_one_line(workspace, content, said):
    (workspace / "params.yaml").unlink()
    if content is not None:
        (workspace / "params.yaml").write_bytes(content)
    done = job("run", folder=workspace)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_a_stage_without_its_inputs_gives_2_and_names_what_to_run(workspace):
    done = job("preprocess", folder=workspace)
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "run `falcon-job fetch` first" in error
    assert "Traceback" not in done.stderr


def test_presets_are_listed_written_and_refused_on_the_command_line(workspace):
    assert job("preset", folder=workspace).stdout.startswith("demo ")
    (workspace / "params.yaml").unlink()
    written = job("preset", "seed", folder=workspace)
    assert written.returncode == 0
    assert "Wrote preset seed to params.yaml" in written.stdout
    assert (workspace / "params.yaml").read_bytes() == (ROOT / "presets" / "seed.yaml").read_bytes()
    refused = job("preset", "sed", folder=workspace)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: preset sed does not exist: choose one of these\n  demo ")


def test_a_command_works_from_a_folder_inside_the_clone(workspace):
    (workspace / "deep" / "er").mkdir(parents=True)
    assert job("preset", "seed", folder=workspace / "deep" / "er").returncode == 0
    assert (workspace / "params.yaml").read_bytes() == (ROOT / "presets" / "seed.yaml").read_bytes()


def test_summary_of_a_clone_that_never_ran_says_nothing_false(workspace):
    done = job("summary", folder=workspace)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_the_console_script_does_what_the_module_does(workspace):
    """As pip writes the script, from what pyproject.toml says."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts["falcon-job"].split(":")
    script = workspace / "falcon-job"
    script.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    for arguments in (["--help"], ["train", "--help"], ["trian"], ["preset"], ["preset", "sed"]):
        one = call(sys.executable, str(script), *arguments, folder=workspace)
        other = job(*arguments, folder=workspace)
        assert one.returncode == other.returncode
        assert one.stdout == other.stdout.replace("python -m falcon_job", "falcon-job")
        assert one.stderr == other.stderr.replace("python -m falcon_job", "falcon-job")


def test_a_python_without_the_dependencies_says_how_to_get_them():
    done = call(
        sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import falcon_job.__main__"
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {sys.executable} has no package click: activate the environment")
    assert "make env" in done.stderr
    assert done.stderr.count("\n") == 1
