"""What the image promises to any caller; `make container-test` runs it inside."""

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.container,
    pytest.mark.skipif("FALCON_JOB_IMAGE" not in os.environ, reason="asks about the image, from inside"),
]


@pytest.mark.parametrize("name", ["HOME", "HF_HOME"])
def test_a_caller_without_a_name_can_write_there(name):
    file = Path(os.environ[name]) / f"written-by-{os.getuid()}"
    file.touch()
    file.unlink()


def test_the_caller_is_not_root_and_has_the_name_that_dvc_and_inductor_ask_for():
    assert os.getuid() != 0
    assert getpass.getuser() == "job"


def test_no_cache_lies_outside_the_temporary_folder():
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


def test_the_job_is_a_command_and_finds_nothing_wrong_with_the_image():
    done = subprocess.run(["falcon-job", "doctor", "--json"], capture_output=True, text=True)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, done.stdout
    assert {checks[name]["status"] for name in ("packages", "compiler", "bitsandbytes", "git", "dvc")} == {"ok"}
