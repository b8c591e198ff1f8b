import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_fetch_alone_sees_the_token_of_the_hub(tmp_path):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    code = """
import os, sys, types
from falcon_job.stages.running import run_stage
def show(params, workspace):
    import huggingface_hub
    print([key for key in os.environ if key.endswith("TOKEN")], huggingface_hub.get_token())
name = sys.argv[1]
sys.modules[f"falcon_job.stages.{name}"] = types.SimpleNamespace(**{name: show})
run_stage(name)
"""
    (tmp_path / "token").write_text("saved by a login")
    env = {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path), "HF_TOKEN": "set", "HUGGING_FACE_HUB_TOKEN": "of old"}

    def said(stage: str) -> str:
        command = [sys.executable, "-c", code, stage]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120).stdout

    assert said("fetch") == "['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN'] set\n"
    assert said("preprocess") == "[] None\n"


@pytest.mark.parametrize("given", [None, "", "elsewhere"])
def test_compiled_kernels_are_kept_in_the_clone_unless_told_otherwise(tmp_path, given):
    code = """
from pathlib import Path
from falcon_job.stages.running import _set_up_libraries
from falcon_job.workspace import Workspace
_set_up_libraries(Workspace(Path.cwd()))
from torch._inductor.runtime.cache_dir_utils import cache_dir
print(cache_dir())
"""
    env = {"PYTHONPATH": str(ROOT)}
    if given is not None:
        env["TORCHINDUCTOR_CACHE_DIR"] = given and str(tmp_path / given)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert Path(done.stdout.strip()) == tmp_path / (given or "scratch/kernels")


@pytest.mark.parametrize(("given", "deterministic"), [(None, True), ("1", True), ("0", False)])
def test_compiled_kernels_are_chosen_without_a_race_unless_told_otherwise(tmp_path, given, deterministic):
    code = """
from pathlib import Path
from falcon_job.stages.running import _set_up_libraries
from falcon_job.workspace import Workspace
_set_up_libraries(Workspace(Path.cwd()))
from torch._inductor import config
print(config.deterministic)
"""
    env = {"PYTHONPATH": str(ROOT)} | ({"TORCHINDUCTOR_DETERMINISTIC": given} if given else {})
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str(deterministic), done.stderr


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_temporary_files_of_sqlite_lie_in_the_clone(tmp_path):
    """Open ones have no name, but Linux tells where they were."""
    code = """
import os
from pathlib import Path
from falcon_job.stages.running import _set_up_libraries
from falcon_job.workspace import Workspace
workspace = Workspace(Path.cwd())
workspace.scratch.mkdir()
_set_up_libraries(workspace)
from falcon_job.records.passage import Passage, Question
from falcon_job.records.store import PassageStore
store = PassageStore()
for number in range(100):
    store.add(Passage("A", str(number) + "x" * 1_000_000, (Question(str(number), "Q?", ()),)))
files = os.listdir("/proc/self/fd")
print([os.path.realpath(f"/proc/self/fd/{file}") for file in files])
"""
    command = [sys.executable, "-c", code]
    env = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert str(tmp_path / "scratch") in done.stdout, done.stderr
