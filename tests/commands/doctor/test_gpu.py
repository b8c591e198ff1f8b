"""Why torch does not use a GPU, whether the device serves the params, and bitsandbytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from falcon_job.commands.doctor import gpu
from falcon_job.commands.doctor.finding import Surroundings
from falcon_job.commands.doctor.gpu import check_bitsandbytes, check_driver, check_gpu, check_torch
from falcon_job.errors import MachineError
from falcon_job.machine import Machine
from falcon_job.params import load_params

ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "presets" / "demo.yaml")
H100 = "echo 'NVIDIA H100, 580.95.05'"
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def here(device="auto", precision="fp32", optimizer="adamw_torch"):
    model = PARAMS.model.model_copy(update={"precision": precision})
    train = PARAMS.train.model_copy(update={"optimizer": optimizer})
    params = PARAMS.model_copy(update={"model": model, "train": train})
    return Surroundings(None, params, Machine.model_construct(device=device))


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Make a folder the only one on the PATH; return what puts a script for nvidia-smi into it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(script):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return make


@pytest.fixture
def cuda_build(monkeypatch):
    """Let torch be built for CUDA 13.0 and give a reason for not using it."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return lambda reason: monkeypatch.setattr(gpu, "_why_no_cuda", lambda: reason)


def pci_device(root, vendor):
    folder = root / "sys/bus/pci/devices/0000:00:04.0"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")


@needs_no_gpu
def test_a_cpu_build_of_torch_beside_a_driver_is_noted(nvidia_smi, monkeypatch):
    nvidia_smi(H100)
    monkeypatch.setattr(torch.version, "cuda", None)
    found = check_driver(here())
    assert found.status == "note"
    assert found.found == "NVIDIA H100, 580.95.05, but this torch is a CPU build"
    assert "make env TORCH_INDEX=" in found.fix
    monkeypatch.setenv("FALCON_JOB_IMAGE", "1")
    assert "make image TORCH_INDEX=" in check_driver(here()).fix


@needs_no_gpu
def test_a_driver_that_does_not_answer_is_quoted(nvidia_smi):
    nvidia_smi("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    said = "nvidia-smi fails (Failed to initialize NVML: Driver/library version mismatch)"
    assert check_driver(here()).found == said
    assert [check_driver(here(device)).status for device in ("auto", "cuda", "cpu")] == ["note", "problem", "ok"]


@needs_no_gpu
def test_a_driver_that_is_too_old_asks_for_a_newer_one_or_another_torch(nvidia_smi, cuda_build):
    nvidia_smi(H100)
    cuda_build("The NVIDIA driver on your system is too old (found version 12080).")
    found = check_driver(here())
    assert "too old for this torch's CUDA 13.0" in found.found
    assert "newer driver" in found.fix
    assert "TORCH_INDEX=" in found.fix


@needs_no_gpu
def test_gpus_hidden_by_a_variable_are_named(nvidia_smi, cuda_build, monkeypatch):
    nvidia_smi(H100)
    cuda_build("No CUDA GPUs are available")
    assert "(No CUDA GPUs are available)" in check_driver(here()).found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    found = check_driver(here())
    assert "CUDA_VISIBLE_DEVICES='7'" in found.found
    assert "unset" in found.fix


@needs_no_gpu
@pytest.mark.usefixtures("nvidia_smi")
def test_a_card_without_a_driver_says_what_to_install_or_start(tmp_path):
    assert check_driver(here(), tmp_path).status == "ok"
    pci_device(tmp_path, "0x10de")
    found = check_driver(here(), tmp_path)
    assert found.status == "note"
    assert "--gpus all" in found.fix
    assert "install" in found.fix


@needs_no_gpu
@pytest.mark.usefixtures("nvidia_smi")
def test_the_card_of_another_vendor_needs_no_driver(tmp_path):
    pci_device(tmp_path, "0x8086")
    assert check_driver(here(), tmp_path).status == "ok"


def test_torch_says_which_cuda_it_was_built_for(monkeypatch):
    assert (torch.version.cuda or "CPU build") in check_torch(here()).found
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "CUDA 13.0" in check_torch(here()).found


@needs_no_gpu
@pytest.mark.parametrize(("device", "precision", "status"), [("auto", "fp32", "note"), ("cpu", "bf16", "ok")])
def test_without_a_gpu_the_cpu_serves(device, precision, status):
    assert check_gpu(here(device, precision)).status == status


@needs_no_gpu
@pytest.mark.parametrize(("device", "precision"), [("auto", "fp16"), ("cpu", "fp16"), ("cuda", "fp32")])
def test_what_only_a_gpu_can_do_is_a_problem_without_one(device, precision):
    with pytest.raises(MachineError):
        check_gpu(here(device, precision))


@pytest.fixture
def old_gpu(monkeypatch):
    """Let torch see a GPU that is too old for it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    real = torch.ones

    def ones(*size, device=None, **options):
        if device:
            raise RuntimeError("no kernel image is available\nfor this device")
        return real(*size, **options)

    monkeypatch.setattr(torch, "ones", ones)


@pytest.mark.usefixtures("old_gpu")
def test_a_gpu_that_does_not_compute_is_a_problem():
    with pytest.raises(MachineError) as caught:
        check_gpu(here())
    assert str(caught.value).startswith("Tesla P100 cannot compute (no kernel image is available): ")
    assert "sm_75, sm_90" in caught.value.fix
    assert "TORCH_INDEX=" in caught.value.fix


@pytest.mark.usefixtures("old_gpu")
def test_a_precision_that_the_gpu_does_not_have_is_a_problem():
    with pytest.raises(MachineError, match="fp8"):
        check_gpu(here("cuda", "fp8"))


def test_a_gpu_is_left_alone_where_the_cpu_is_asked_for(monkeypatch):
    pytest.importorskip("bitsandbytes.functional")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert check_gpu(here("cpu")).status == "ok"
    assert check_bitsandbytes(here("cpu")).found == "nf4 works on cpu"


@needs_gpu
def test_a_gpu_computes_and_is_described():
    found = check_gpu(here("cuda", "fp32"))
    assert torch.cuda.get_device_name() in found.found
    assert "GB free" in found.found
    assert check_driver(here()).status == "ok"
    assert check_bitsandbytes(here("cuda")).found


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, "note"),
        ({"precision": "nf4"}, "problem"),
        ({"optimizer": "paged_adamw_8bit"}, "problem"),
        ({"optimizer": "adamw_torch_fused"}, "note"),
    ],
)
def test_missing_bitsandbytes_matters_only_where_params_use_it(monkeypatch, params, status):
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    assert check_bitsandbytes(here("cpu", **params)).status == status


def test_wrong_four_bit_weights_are_found(monkeypatch):
    functional = pytest.importorskip("bitsandbytes.functional")
    honest = functional.quantize_4bit
    monkeypatch.setattr(functional, "quantize_4bit", lambda weights, **options: honest(-weights, **options))
    assert "wrong" in check_bitsandbytes(here("cpu")).found


def test_a_broken_torch_is_a_line_of_each_check_that_needs_it(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')\n")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "falcon_job", "doctor"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    lines = {line[9:24].strip(): line for line in done.stdout.splitlines()}
    for name in ("torch", "driver", "gpu", "bitsandbytes"):
        assert lines[name].startswith("problem")
        assert "libcudart.so.13" in lines[name]
    assert lines["memory"].startswith(("ok", "note"))
