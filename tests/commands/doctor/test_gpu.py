"""The device that the job would use, and the libraries with kernels for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from falcon_job.commands.doctor import gpu
from falcon_job.commands.doctor.finding import Surroundings
from falcon_job.commands.doctor.gpu import check_bitsandbytes, check_gpu, check_torch, check_triton
from falcon_job.params import load_params

ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "presets" / "demo.yaml")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def here(device="auto", precision="fp32", optimizer="adamw_torch"):
    model = PARAMS.model.model_copy(update={"precision": precision})
    train = PARAMS.train.model_copy(update={"optimizer": optimizer})
    return Surroundings(None, PARAMS.model_copy(update={"model": model, "train": train}), device)


@pytest.fixture
def no_bitsandbytes(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)


def test_torch_says_which_cuda_it_was_built_for():
    found = check_torch(here())
    assert found.status == "ok"
    assert (torch.version.cuda or "CPU build") in found.found


@needs_no_gpu
@pytest.mark.parametrize(
    ("device", "precision", "status"),
    [
        ("auto", "fp32", "note"),
        ("auto", "fp16", "problem"),
        ("cpu", "bf16", "ok"),
        ("cpu", "fp16", "problem"),
        ("cuda", "fp32", "problem"),
    ],
)
def test_without_a_gpu_it_depends_on_what_is_asked_for(device, precision, status):
    assert check_gpu(here(device, precision)).status == status


def test_a_gpu_is_not_used_where_the_cpu_is_asked_for(monkeypatch):
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert check_gpu(here("cpu")).status == "ok"
    assert "on cpu" in check_bitsandbytes(here("cpu")).found


@pytest.mark.parametrize(
    ("error", "found", "fix"),
    [
        (RuntimeError("no kernel image is available\nfor"), "does not compute (no kernel image is available)", "sm_75"),
        (torch.OutOfMemoryError("CUDA out of memory"), "is full", "nvidia-smi"),
    ],
)
def test_a_gpu_that_does_not_compute_is_a_problem(monkeypatch, error, found, fix):
    def fail(index):
        raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr(gpu, "_describe", fail)
    seen = check_gpu(here())
    assert seen.status == "problem"
    assert f"Tesla P100 {found}" in seen.found
    assert fix in seen.fix


def test_a_precision_that_the_gpu_cannot_compute_is_a_problem_with_what_to_use(monkeypatch):
    monkeypatch.setattr(gpu, "uses_gpu", lambda here: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A10")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 6))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(gpu, "_describe", lambda index: "compute capability 8.6")
    assert check_gpu(here("cuda", "bf16")).status == "ok"
    seen = check_gpu(here("cuda", "fp8"))
    assert seen.status == "problem"
    assert "A10 (compute capability 8.6): model.precision fp8 needs a GPU of compute capability 8.9" in seen.found
    assert seen.fix == "use fp32, fp16, bf16 or nf4 on this machine"


@needs_gpu
def test_a_gpu_computes_and_is_described():
    seen = check_gpu(here("cuda", "bf16"))
    assert seen.status == "ok"
    assert torch.cuda.get_device_name() in seen.found
    assert "free" in seen.found
    assert check_bitsandbytes(here("cuda")).found


def test_four_bit_weights_are_tried():
    pytest.importorskip("bitsandbytes")
    found = check_bitsandbytes(here("cpu", "nf4"))
    assert found.status == "ok"
    assert "nf4 works on cpu" in found.found
    assert 0.01 < gpu._quantization_error("cpu") < gpu.QUANTIZATION_ERROR


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, "note"),
        ({"precision": "nf4"}, "problem"),
        ({"optimizer": "paged_adamw_8bit"}, "problem"),
        ({"optimizer": "adamw_torch_fused"}, "note"),
    ],
)
@pytest.mark.usefixtures("no_bitsandbytes")
def test_missing_bitsandbytes_matters_only_where_params_use_it(params, status):
    assert check_bitsandbytes(here("cpu", **params)).status == status


def test_wrong_four_bit_products_are_found(monkeypatch):
    functional = pytest.importorskip("bitsandbytes.functional")
    honest = functional.quantize_4bit
    monkeypatch.setattr(functional, "quantize_4bit", lambda weight, **options: honest(-weight, **options))
    found = check_bitsandbytes(here("cpu", "nf4"))
    assert found.status == "problem"
    assert "computes wrongly on cpu" in found.found


def test_triton_is_for_gpus_alone(monkeypatch):
    assert check_triton(here("cpu")).status == "ok"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "triton", None)
    found = check_triton(here())
    assert found.status == "note"
    assert "no fused attention kernels" in found.found


def test_a_torch_that_cannot_be_imported_is_lines_and_no_traceback(tmp_path):
    """As when its libraries are missing: every check that needs it says so."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')\n")
    done = subprocess.run(
        [sys.executable, "-m", "falcon_job", "doctor"],
        cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    lines = {line[9:24].strip(): line for line in done.stdout.splitlines()}
    for name in ("torch", "driver", "gpu", "triton"):
        assert lines[name].startswith("problem")
        assert "libcudart.so.13" in lines[name]
    assert lines["cores"].startswith(("ok", "note"))
