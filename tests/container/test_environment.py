"""What any user of the image can rely on; `make container-test` runs this inside."""

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.container,
    pytest.mark.skipif("FALCON_JOB_IMAGE" not in os.environ, reason="runs inside the image only"),
]


@pytest.mark.parametrize("name", ["HOME", "HF_HOME"])
def test_a_caller_without_a_name_can_write_there(name):
    file = Path(os.environ[name]) / f"written-by-{os.getuid()}"
    file.touch()
    file.unlink()


def test_the_caller_is_not_root_and_has_a_user_name():
    """DVC and torch's compiler ask for the name."""
    assert os.getuid() != 0
    assert getpass.getuser() == "job"


def test_all_caches_but_the_hubs_are_in_the_temporary_folder():
    code = """
import evaluate.config, datasets.config, torch._inductor.runtime.cache_dir_utils as inductor
from dvc.dirs import site_cache_dir
from huggingface_hub.constants import HF_HUB_CACHE
print(HF_HUB_CACHE, inductor.cache_dir(), site_cache_dir(), datasets.config.HF_MODULES_CACHE,
      datasets.config.HF_DATASETS_CACHE, evaluate.config.HF_EVALUATE_CACHE, evaluate.config.HF_MODULES_CACHE)
"""
    hub, *others = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert hub.startswith("/hf/")
    assert all(folder.startswith("/tmp/") for folder in others), others


def test_doctor_finds_no_problem_in_the_image():
    done = subprocess.run(["falcon-job", "doctor", "--json"], capture_output=True, text=True)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, done.stdout
    assert {checks[name]["status"] for name in ("packages", "compiler", "bitsandbytes", "git", "dvc")} == {"ok"}
