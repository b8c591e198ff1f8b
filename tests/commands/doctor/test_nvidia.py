"""The driver, through a library that answers as NVIDIA's does, and why torch cannot use it."""

import shutil
import subprocess

import pytest
import torch

from falcon_job.commands.doctor import nvidia
from falcon_job.commands.doctor.finding import Surroundings
from falcon_job.commands.doctor.nvidia import Driver, check_driver, explain

NOWHERE = Surroundings()
WANTED = Surroundings(device="cuda")
NVML = """
#include <string.h>
int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned int length) { strncpy(version, "580.95.05", length); return 0; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 12080; return 0; }
const char *nvmlErrorString(int code) { return "Driver/library version mismatch"; }
"""
DRIVER = Driver("580.95.05", (12, 8))
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")


@pytest.fixture
def nvml(tmp_path):
    """Build a library of the driver whose first call returns a code; return the variables that make it found."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")

    def build(code):
        folder = tmp_path / "driver"
        folder.mkdir(exist_ok=True)
        (folder / "nvml.c").write_text(NVML.replace("INIT", str(code)))
        command = ["cc", "-shared", "-fPIC", "nvml.c", "-o", "libnvidia-ml.so.1"]
        subprocess.run(command, cwd=folder, check=True)
        return {"LD_LIBRARY_PATH": str(folder)}

    return build


@pytest.fixture
def no_library(monkeypatch):
    monkeypatch.setattr(nvidia, "LIBRARY", "libnothing-of-that-name.so.1")


@needs_no_gpu
@pytest.mark.skipif(torch.version.cuda is not None, reason="torch is no CPU build")
def test_a_cpu_build_of_torch_beside_a_driver_is_noted(clone, nvml):
    status, found, fix = clone.finding("driver", **nvml(0))
    assert status == "note"
    assert found == "580.95.05, for CUDA up to 12.8, but this torch is a CPU build"
    assert fix == "remove .venv/, then `make env`"
    assert clone.finding("driver", **nvml(0), FALCON_JOB_IMAGE="1")[2] == "`make image`"


@needs_no_gpu
def test_a_driver_that_does_not_answer_is_quoted(clone, nvml):
    status, found, fix = clone.finding("driver", **nvml(18))
    assert status == "note"
    assert "Driver/library version mismatch" in found
    assert "reboot" in fix
    assert clone.finding("driver", **nvml(18), FALCON_JOB_DEVICE="cuda")[0] == "problem"


def test_where_the_cpu_is_asked_for_the_driver_is_no_matter(clone, nvml):
    for code in (0, 18):
        assert clone.finding("driver", **nvml(code), FALCON_JOB_DEVICE="cpu")[0] == "ok"


def test_a_driver_older_than_torchs_cuda_asks_for_a_newer_one_or_another_torch():
    found, fix = explain(DRIVER, "13.0", "")
    assert "too old for this torch's CUDA 13.0" in found
    assert "newer driver" in fix
    assert "TORCH_INDEX=" in fix
    assert "CUDA 12.8 or older" in fix
    says = "The NVIDIA driver on your system is too old (found version 12080)."
    assert "too old" in explain(DRIVER, "12.9", says)[0]


def test_gpus_hidden_by_a_variable_are_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    found, fix = explain(DRIVER, "12.6", "No CUDA GPUs are available")
    assert "CUDA_VISIBLE_DEVICES='7'" in found
    assert "unset" in fix


def test_a_container_without_devices_says_how_to_start_it(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    found, fix = explain(DRIVER, "12.6", "No CUDA GPUs are available", tmp_path)
    assert "no GPU in /dev" in found
    assert "--gpus all" in fix


@pytest.mark.parametrize("device", ["nvidia0", "dxg"])
def test_else_torch_is_quoted(monkeypatch, tmp_path, device):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / device).touch()
    assert "(unknown error)" in explain(DRIVER, "12.6", "unknown error", tmp_path)[0]


@needs_no_gpu
@pytest.mark.usefixtures("no_library")
def test_a_container_beside_the_hosts_driver_says_how_to_start_it(tmp_path):
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    found = check_driver(NOWHERE, tmp_path)
    assert found.status == "note"
    assert "docker run --gpus all" in found.fix
    assert check_driver(WANTED, tmp_path).status == "problem"


@needs_no_gpu
@pytest.mark.usefixtures("no_library")
def test_a_card_without_a_driver_asks_for_one(tmp_path):
    for slot, vendor, kind in (("0", "0x8086", "0x060000"), ("1", "0x10de", "0x030200")):
        folder = tmp_path / "sys/bus/pci/devices" / slot
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    found = check_driver(NOWHERE, tmp_path)
    assert found.status == "note"
    assert "install NVIDIA's driver" in found.fix
    (folder / "class").write_text("0x068000\n")
    assert check_driver(NOWHERE, tmp_path).status == "ok", "a bridge is no GPU"


@needs_no_gpu
@pytest.mark.usefixtures("no_library")
def test_a_machine_without_any_is_ok(tmp_path):
    assert check_driver(NOWHERE, tmp_path).status == "ok"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_driver_in_use_is_ok():
    assert "for CUDA up to" in check_driver(NOWHERE).found
    assert check_driver(NOWHERE).status == "ok"
