"""Checks of torch, NVIDIA's driver, the GPUs, and bitsandbytes on them."""

import os
import shutil
import subprocess
from pathlib import Path

from falcon_job.commands.doctor.finding import Finding, Surroundings, gigabytes, reinstall
from falcon_job.errors import MachineError, first_line

REPAIR = (
    "start a container with `docker run --gpus all` or podman's `--device nvidia.com/gpu=all`; outside of one, install "
    "NVIDIA's driver again and reboot"
)
ASK_DRIVER = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
ROOT = Path("/")


def check_torch(here: Surroundings) -> Finding:
    """Check that torch can be imported, and say which CUDA it was built for."""
    try:
        import torch
    except (ImportError, OSError) as error:
        raise MachineError(
            f"cannot be imported ({first_line(error)})", place="torch", fix=reinstall(another_torch=True)
        ) from error
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    return Finding("ok", f"{torch.__version__}, {built}")


def check_driver(here: Surroundings, root: Path = ROOT) -> Finding:
    """Find out why torch does not use an NVIDIA GPU of this machine."""
    import torch

    if here.machine.device == "cpu":
        return Finding("ok", "not needed, as FALCON_JOB_DEVICE=cpu is set")
    if torch.cuda.is_available():
        return Finding("ok", "works with this torch")
    obstacle = _obstacle(root)
    if obstacle is None:
        return Finding("ok", "no NVIDIA GPU found")
    return Finding("problem" if here.machine.device == "cuda" else "note", *obstacle)


def _obstacle(root: Path) -> tuple[str, str] | None:
    """Return why torch cannot use a GPU, and the fix; None if there is no NVIDIA GPU."""
    import torch

    if not shutil.which(ASK_DRIVER[0]):
        vendors = (root / "sys/bus/pci/devices").glob("*/vendor")
        has_nvidia = any(file.read_text(encoding="utf-8").strip() == "0x10de" for file in vendors)
        return ("missing, though there is an NVIDIA GPU", REPAIR) if has_nvidia else None
    asked = subprocess.run(ASK_DRIVER, capture_output=True, text=True)  # noqa: S603
    said = (asked.stdout + asked.stderr).strip().partition("\n")[0]
    if asked.returncode:
        return f"nvidia-smi fails ({said})", REPAIR
    if torch.version.cuda is None:
        return f"{said}, but this torch is a CPU build", reinstall(another_torch=True)
    reason = _why_no_cuda()
    if "too old" in reason:
        fix = f"install a newer driver, or a torch for an older CUDA: {reinstall(another_torch=True)}"
        return f"{said}, too old for this torch's CUDA {torch.version.cuda}", fix
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        fix = "unset CUDA_VISIBLE_DEVICES, or name GPUs that `nvidia-smi` lists"
        return f"{said}, but CUDA_VISIBLE_DEVICES={visible!r} hides it from torch ({reason})", fix
    return f"{said}, but torch cannot use it ({reason})", REPAIR


def _why_no_cuda() -> str:
    """Return the reason that torch itself gives for not using a GPU."""
    import torch

    try:
        torch.zeros(1, device="cuda")
    except (AssertionError, RuntimeError) as error:
        return first_line(error)
    return "no reason given"


def check_gpu(here: Surroundings) -> Finding:
    """Check that the device supports the precision of params, and that every GPU can compute."""
    import torch

    from falcon_job.model.precision import choose_device, compute_dtype

    device = choose_device(here.machine)
    if here.params:
        compute_dtype(here.params.model.precision, device)
    if device.type == "cuda":
        return Finding("ok", "; ".join(map(_try_gpu, range(torch.cuda.device_count()))))
    if here.machine.device == "cpu":
        return Finding("ok", "not used, as FALCON_JOB_DEVICE=cpu is set")
    return Finding(
        "note", "torch sees none, so the job runs on the CPU", "see the line for driver; small models train on a CPU"
    )


def _try_gpu(index: int) -> str:
    """Multiply matrices on a GPU; return its name, compute capability and memory."""
    import torch

    name = torch.cuda.get_device_name(index)
    try:
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        (ones @ ones).sum().item()
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        built = f"built for {', '.join(torch.cuda.get_arch_list())}"
        fix = f"end other programs that use it, or replace this torch ({built}): {reinstall(another_torch=True)}"
        raise MachineError(f"cannot compute ({first_line(error)})", place=name, fix=fix) from error
    capability = ".".join(map(str, torch.cuda.get_device_capability(index)))
    return f"{name} (compute capability {capability}, {gigabytes(free)} of {gigabytes(total)} free)"


def check_bitsandbytes(here: Surroundings) -> Finding:
    """Check that bitsandbytes can quantize weights to 4 bits on the device that the job would use."""
    import torch

    device = "cuda" if here.machine.device != "cpu" and torch.cuda.is_available() else "cpu"
    weights = torch.eye(64, device=device)  # 0 and 1 are exact in nf4
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        if not torch.equal(dequantize_4bit(*quantize_4bit(weights, quant_type="nf4")), weights):
            raise RuntimeError("4-bit weights are dequantized to wrong values")
    except Exception as error:  # its libraries can raise anything
        params = here.params
        needed = params and (params.model.precision == "nf4" or not params.train.optimizer.startswith("adamw_torch"))
        found = f"fails on {device} ({first_line(error)}), so nf4 and 8-bit optimizers do not work"
        return Finding("problem" if needed else "note", found, reinstall())
    return Finding("ok", f"nf4 works on {device}")
