"""torch, the GPUs it sees, and the libraries with GPU kernels."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from falcon_job.commands.doctor.finding import (
    Finding,
    Surroundings,
    needs_bitsandbytes,
    note,
    ok,
    problem,
    readable,
    renew_environment,
    renew_torch,
    uses_gpu,
)
from falcon_job.errors import MachineError, first_line

QUANTIZATION_ERROR = 0.2
"""Relative error of a product with nf4 weights that is surely a wrong one; 0.09 is usual."""


def check_torch(here: Surroundings) -> Finding:
    """Check that torch can be imported, and say which CUDA it was built with."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return problem(f"cannot be imported ({first_line(error)})", renew_torch(""))
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build, without CUDA"
    return ok(f"{torch.__version__}, {built}")


def check_gpu(here: Surroundings) -> Finding:
    """Compute something on every GPU that torch sees."""
    if uses_gpu(here):
        return _try_gpus(here)
    if here.params and here.params.model.precision == "fp16":
        return problem("none in use, and model.precision fp16 needs one", "use bf16 or fp32 on a CPU; see driver")
    if here.device == "cpu":
        return ok("none in use, as FALCON_JOB_DEVICE=cpu says")
    if here.device == "cuda":
        return problem("torch sees none, and FALCON_JOB_DEVICE=cuda asks for one", "see driver, or unset it")
    return note(
        "torch sees none, so the job runs on the CPU", "where there is one, see driver; the CPU is for small models"
    )


def _try_gpus(here: Surroundings) -> Finding:
    import torch

    from falcon_job.model.precision import compute_dtype

    found = []
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        try:
            found.append(f"{name} ({_describe(index)})")
        except torch.OutOfMemoryError:
            return problem(f"{name} is full", "end what else runs on it, which `nvidia-smi` lists")
        except RuntimeError as error:
            built = ", ".join(torch.cuda.get_arch_list())
            return problem(
                f"{name} does not compute ({first_line(error)})",
                f"this torch serves {built}: {renew_torch('this GPU')}, or set FALCON_JOB_DEVICE=cpu",
            )
    try:
        if here.params:
            compute_dtype(here.params.model.precision, torch.device("cuda"))
    except MachineError as error:
        refusal, _, fix = str(error).rpartition(": ")
        return problem(f"{'; '.join(found)}: {refusal}", fix)
    return ok("; ".join(found))


def _describe(index: int) -> str:
    """Return what a GPU can do, once it has multiplied matrices.

    Raises:
        RuntimeError: it cannot, or not rightly.
    """
    import torch

    with torch.cuda.device(index):
        free, total = torch.cuda.mem_get_info()
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        ones = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16 if bf16 else torch.float16)
        if not (ones @ ones == len(ones)).all():
            raise RuntimeError("a product of matrices is wrong")
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
    return f"compute capability {capability}, {readable(free)} of {readable(total)} free, {'' if bf16 else 'no '}bf16"


def check_bitsandbytes(here: Surroundings) -> Finding:
    """Multiply with 4-bit weights on the device that the job would use."""
    lacking = problem if needs_bitsandbytes(here.params) else note
    device = "cuda" if uses_gpu(here) else "cpu"
    try:
        error = _quantization_error(device)
    except ModuleNotFoundError as missing:
        return lacking(f"cannot be imported ({missing}), so no nf4 and no 8-bit optimizer", renew_environment())
    except Exception as failed:  # its libraries fail in many ways, which matter only where it is needed
        return lacking(f"{_version('bitsandbytes')} fails on {device} ({first_line(failed)})", renew_environment())
    if error > QUANTIZATION_ERROR:
        return lacking(f"{_version('bitsandbytes')} computes wrongly on {device}", renew_environment())
    return ok(f"{_version('bitsandbytes')}, nf4 works on {device}")


def _quantization_error(device: str) -> float:
    import torch
    from bitsandbytes import matmul_4bit
    from bitsandbytes.functional import quantize_4bit

    weight = torch.arange(64 * 64, device=device).reshape(64, 64).sin()
    rows = torch.eye(64, device=device)
    quantized, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    product = matmul_4bit(rows, quantized.t(), quant_state=state)
    return float((product - weight.t()).norm() / weight.norm())


def check_triton(here: Surroundings) -> Finding:
    """Check that Triton can be imported where there is a GPU for it."""
    if not uses_gpu(here):
        return ok(f"{_version('triton')}, and only a GPU needs it")
    try:
        import_module("triton")  # which is not installed, nor known to mypy, everywhere
    except (ImportError, OSError) as error:
        return note(f"cannot be imported ({first_line(error)}), so no fused attention kernels", renew_environment())
    return ok(_version("triton"))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
