"""How a stage is run: its environment, signals, log file and exit code. The stages here are made up."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_stage(tmp_path):
    """Run `falcon-job STAGE` in a clone without data, where the work of the stage is the code that is given."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)

    def run(work: str, *, stage: str = "preprocess", **env: str) -> subprocess.CompletedProcess[str]:
        code = f"""
import os, signal, sys, time, types
from falcon_job.cli import main
def stop():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)
class StopsWhenFinalized:
    def __del__(self):
        stop()
def work(params, machine, workspace):
{indent(work, "    ")}
sys.modules["falcon_job.stages.{stage}"] = types.SimpleNamespace({stage}=work)
sys.argv = ["falcon-job", "{stage}"]
main()
"""
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)} | env,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def log(folder: Path) -> str:
    """Return the text of the one log file."""
    (file,) = (folder / "scratch" / "logs").iterdir()
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("stage", "said"),
    [("fetch", "['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN'] set\n"), ("preprocess", "[] None\n")],
)
def test_only_fetch_sees_the_token_of_the_hub(run_stage, tmp_path, stage, said):
    (tmp_path / "token").write_text("saved by a login")
    work = """
import huggingface_hub
print([key for key in os.environ if key.endswith("TOKEN")], huggingface_hub.get_token())
"""
    done = run_stage(work, stage=stage, HF_HOME=str(tmp_path), HF_TOKEN="set", HUGGING_FACE_HUB_TOKEN="old name")
    assert done.stdout == said, done.stderr


@pytest.mark.parametrize("given", [None, "", "elsewhere"])
def test_compiled_kernels_stay_in_the_clone_unless_set_otherwise(run_stage, tmp_path, given):
    work = """
from torch._inductor.runtime.cache_dir_utils import cache_dir
print(cache_dir())
"""
    env = {} if given is None else {"TORCHINDUCTOR_CACHE_DIR": given and str(tmp_path / given)}
    done = run_stage(work, **env)
    assert Path(done.stdout.strip()) == tmp_path / (given or "scratch/kernels"), done.stderr


@pytest.mark.parametrize(("given", "deterministic"), [(None, True), ("1", True), ("0", False)])
def test_kernels_are_chosen_without_benchmarks_unless_set_otherwise(run_stage, given, deterministic):
    work = """
from torch._inductor import config
print(config.deterministic)
"""
    done = run_stage(work, **({"TORCHINDUCTOR_DETERMINISTIC": given} if given else {}))
    assert done.stdout.strip() == str(deterministic), done.stderr


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_temporary_files_of_sqlite_lie_in_the_clone(run_stage, tmp_path):
    """An open one has no name, but Linux tells where it was made."""
    work = """
import sqlite3
database = sqlite3.connect("")
database.execute("CREATE TABLE passages (text)")
database.executemany("INSERT INTO passages VALUES (?)", [("x" * 1_000_000,)] * 100)
print([os.path.realpath(f"/proc/self/fd/{file}") for file in os.listdir("/proc/self/fd")])
"""
    done = run_stage(work)
    assert str(tmp_path / "scratch" / "etilqs") in done.stdout, done.stderr


def test_a_clear_error_is_one_line_and_its_traceback_is_in_the_log(run_stage, tmp_path):
    work = """
from falcon_job.errors import InputError
try:
    {}["article"]
except KeyError:
    raise InputError("has no articles", place="train.json", fix="add one") from None
"""
    done = run_stage(work)
    assert done.returncode == 2
    assert done.stderr == "Error: train.json has no articles: add one\n"
    logged = log(tmp_path)
    assert "Traceback" in logged
    assert "InputError: train.json has no articles: add one" in logged
    assert "KeyError: 'article'" in logged, "the cause that `from None` hides"


def test_an_unexpected_error_is_in_the_log_with_its_causes(run_stage, tmp_path):
    work = """
try:
    open("missing.txt")
except OSError as error:
    raise ZeroDivisionError("unexpected") from error
"""
    done = run_stage(work)
    assert done.returncode == 1
    assert "ZeroDivisionError: unexpected" in done.stderr
    logged = log(tmp_path)
    assert "FileNotFoundError" in logged
    assert "ZeroDivisionError: unexpected" in logged


def test_the_log_of_a_stage_that_works_holds_no_traceback(run_stage, tmp_path):
    done = run_stage("pass")
    assert done.returncode == 0, done.stderr
    assert "done in" in log(tmp_path)
    assert "Traceback" not in log(tmp_path)


def test_a_full_gpu_gives_3_and_the_settings_to_change(run_stage, tmp_path):
    work = """
import torch
raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
"""
    done = run_stage(work, stage="train")
    assert done.returncode == 3
    assert done.stderr.startswith("Error: Stage train ran out of GPU memory: lower FALCON_JOB_TOKENS_PER_PACK")
    assert done.stderr.count("\n") == 1
    assert "Tried to allocate 2 GiB" in log(tmp_path)


def test_other_runtime_errors_are_left_as_they_are(run_stage):
    done = run_stage("raise RuntimeError('shapes differ')")
    assert done.returncode == 1
    assert "RuntimeError: shapes differ" in done.stderr
    assert "out of GPU memory" not in done.stderr


@pytest.mark.parametrize(
    ("work", "code"), [("raise SystemExit(9)", None), ("raise MachineError('x')", "3"), ("stop()", "143")]
)
def test_errors_of_ours_and_signals_leave_their_exit_code_for_run(run_stage, tmp_path, work, code):
    file = tmp_path / "exit-code"
    run_stage(f"from falcon_job.errors import MachineError\n{work}", FALCON_JOB_EXIT_CODE_FILE=str(file))
    assert (file.read_text() if file.exists() else None) == code


@pytest.mark.parametrize(
    ("work", "said"),
    [
        pytest.param("stop(); time.sleep(60)", "", id="at once"),
        pytest.param("try: stop()\nfinally: raise OSError", "", id="a library's error follows"),
        pytest.param("try: stop()\nfinally: stop(); stop(); print('clean')", "clean", id="repeated"),
        pytest.param("StopsWhenFinalized(); stop(); time.sleep(60)", "", id="the first is lost in a finalizer"),
        pytest.param("try: stop()\nexcept BaseException: pass\nstop(); time.sleep(60)", "", id="the first is caught"),
    ],
)
def test_a_signal_stops_a_stage_and_does_not_disturb_its_clean_up(run_stage, work, said):
    done = run_stage(work)
    assert done.returncode == 143, done.stderr
    assert done.stdout.strip() == said
    assert not [line for line in done.stderr.splitlines() if line.startswith("Error: ")]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_stage_ends_when_the_run_that_started_it_is_gone(run_stage):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    done = run_stage("time.sleep(60)", FALCON_JOB_RUN_PID=str(gone.pid))
    assert done.returncode == 143, done.stderr


@pytest.mark.parametrize("stage", ["fetch", "train"])
def test_bad_settings_leave_no_log_since_nothing_ran(run_stage, tmp_path, stage):
    done = run_stage("print('ran')", stage=stage, FALCON_JOB_DEVICE="abacus")
    assert done.returncode == 2
    assert not done.stdout
    assert "FALCON_JOB_DEVICE" in done.stderr
    assert not (tmp_path / "scratch").exists()
