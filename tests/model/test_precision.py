from typing import get_args

import pytest
import torch

from falcon_job.errors import MachineError
from falcon_job.machine import Machine
from falcon_job.model.precision import PRECISIONS, choose_device, compute_dtype
from falcon_job.params import Precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TURING, AMPERE, ADA = (7, 5), (8, 6), (8, 9)


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that a GPU of some compute capability is there."""
    return lambda capability: monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)


def test_every_precision_that_params_accept_has_a_row():
    assert set(PRECISIONS) == set(get_args(Precision))


@pytest.mark.parametrize(
    ("capability", "precision", "dtype"),
    [
        (TURING, "fp32", torch.float32),
        (TURING, "fp16", torch.float16),
        (TURING, "nf4", torch.float16),
        (AMPERE, "nf4", torch.bfloat16),
        (AMPERE, "bf16", torch.bfloat16),
        (ADA, "fp8", torch.bfloat16),
    ],
)
def test_a_gpu_computes_in_the_type_of_the_precision(gpu, capability, precision, dtype):
    gpu(capability)
    assert compute_dtype(precision, CUDA) == dtype


@pytest.mark.parametrize(
    ("capability", "precision", "needed", "fix"),
    [
        (TURING, "bf16", "8.0", "use fp32, fp16 or nf4 on this machine"),
        (TURING, "fp8", "8.9", "use fp32, fp16 or nf4 on this machine"),
        (AMPERE, "fp8", "8.9", "use fp32, fp16, bf16 or nf4 on this machine"),
    ],
)
def test_a_gpu_too_old_is_refused_with_the_precisions_it_computes(gpu, capability, precision, needed, fix):
    gpu(capability)
    with pytest.raises(MachineError) as caught:
        compute_dtype(precision, CUDA)
    assert str(caught.value).startswith(f"model.precision {precision} needs a GPU of compute capability {needed} or")
    assert caught.value.fix == fix
    assert caught.value.exit_code == 3


def test_a_cpu_computes_every_precision_but_fp16():
    with pytest.raises(MachineError, match=r"fp16 needs a GPU: use fp32, bf16, fp8 or nf4 on this machine"):
        compute_dtype("fp16", CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_on_a_machine_without_it_is_refused():
    with pytest.raises(MachineError, match=r"FALCON_JOB_DEVICE=cuda asks for a GPU, .*: unset it") as caught:
        choose_device(Machine(device="cuda"))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("available", "setting", "device"),
    [
        (False, "auto", CPU),
        (False, "cpu", CPU),
        (True, "auto", CUDA),
        (True, "cuda", CUDA),
        (True, "cpu", CPU),
    ],
)
def test_the_gpu_is_chosen_if_there_is_one_unless_the_cpu_is_asked_for(monkeypatch, available, setting, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device(Machine(device=setting)) == device
