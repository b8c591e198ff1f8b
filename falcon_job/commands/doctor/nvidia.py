"""NVIDIA's driver, asked through its own library NVML, and why torch cannot use it."""

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from falcon_job.commands.doctor.finding import Finding, Surroundings, note, ok, problem, renew_torch
from falcon_job.errors import MachineError, first_line

LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
LONGEST_VERSION = 80
START_WITH_GPUS = (
    "start the container with its GPUs (`docker run --gpus all`, podman `--device nvidia.com/gpu=all`, in Kubernetes "
    "the limit `nvidia.com/gpu: 1`)"
)
ROOT = Path("/")


@dataclass(frozen=True)
class Driver:
    """A driver that answers."""

    version: str
    cuda: tuple[int, int]
    """The newest CUDA it serves."""

    def __str__(self) -> str:
        return f"{self.version}, for CUDA up to {self.cuda[0]}.{self.cuda[1]}"


def check_driver(here: Surroundings, root: Path = ROOT) -> Finding:
    """Check that the driver answers and that torch can use it."""
    import torch

    usable = torch.cuda.is_available()
    try:
        driver = read_driver()
    except MachineError as error:
        if usable or here.device == "cpu":
            return ok(f"does not answer ({error}), but is {'used' if usable else 'not wanted'}")
        return _on_the_cpu(here, f"does not answer ({error})", "reboot, or install it anew, until `nvidia-smi` answers")
    if usable or here.device == "cpu":
        return ok(str(driver or "none"))
    if driver is None:
        return _without_library(here, root)
    return _on_the_cpu(here, *explain(driver, torch.version.cuda, _torch_says(), root))


def read_driver() -> Driver | None:
    """Return the driver; None where its library is not installed.

    Raises:
        MachineError: it is, and does not answer.
    """
    try:
        nvml = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    _call(nvml, "nvmlInit_v2")
    version, cuda = ctypes.create_string_buffer(LONGEST_VERSION), ctypes.c_int()
    try:
        _call(nvml, "nvmlSystemGetDriverVersion", version, LONGEST_VERSION)
        _call(nvml, "nvmlSystemGetCudaDriverVersion", ctypes.byref(cuda))
    finally:
        nvml.nvmlShutdown()
    return Driver(version.value.decode(), (cuda.value // 1000, cuda.value % 1000 // 10))


def _call(nvml: ctypes.CDLL, function: str, *arguments: object) -> None:
    if code := getattr(nvml, function)(*arguments):
        nvml.nvmlErrorString.restype = ctypes.c_char_p
        raise MachineError(nvml.nvmlErrorString(code).decode())


def _torch_says() -> str:
    """Return why torch cannot use a GPU, in its own words."""
    import torch

    try:
        torch.zeros(1, device="cuda")
    except Exception as error:  # an AssertionError, a RuntimeError or one of its own
        return first_line(error)
    return "no reason given"


def explain(driver: Driver, torch_cuda: str | None, torch_says: str, root: Path = ROOT) -> tuple[str, str]:
    """Return why torch does not use a driver that answers, and what to do."""
    if torch_cuda is None:
        return f"{driver}, but this torch is a CPU build", renew_torch("")
    if driver.cuda[0] < int(torch_cuda.partition(".")[0]) or "too old" in torch_says:
        older = f"CUDA {driver.cuda[0]}.{driver.cuda[1]} or older"
        return (
            f"{driver}, too old for this torch's CUDA {torch_cuda}",
            f"install a newer driver, or a torch for this one: {renew_torch(older)}",
        )
    if (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return (
            f"{driver}, but with CUDA_VISIBLE_DEVICES={hidden!r} torch cannot use it ({torch_says})",
            "unset that, or name GPUs that are there",
        )
    if not any((root / "dev").glob("nvidia[0-9]*")) and not (root / "dev" / "dxg").exists():
        return f"{driver}, but no GPU in /dev", f"{START_WITH_GPUS}; outside of one, reboot"
    return f"{driver}, but torch cannot use it ({torch_says})", "reboot; then see that `nvidia-smi` lists the GPU"


def _without_library(here: Surroundings, root: Path) -> Finding:
    if (root / "proc" / "driver" / "nvidia").is_dir():
        return _on_the_cpu(
            here,
            "in the kernel, but its libraries are not here",
            f"{START_WITH_GPUS}; outside of one, install the driver anew",
        )
    if _has_nvidia_card(root):
        return _on_the_cpu(here, "none, though there is an NVIDIA GPU", "install NVIDIA's driver, then reboot")
    return ok("none, and no NVIDIA GPU to be seen")


def _has_nvidia_card(root: Path) -> bool:
    for device in (root / "sys" / "bus" / "pci" / "devices").glob("*"):
        vendor, kind = ((device / name).read_text(encoding="utf-8").strip() for name in ("vendor", "class"))
        if vendor == "0x10de" and kind.startswith("0x03"):  # NVIDIA, display controller
            return True
    return False


def _on_the_cpu(here: Surroundings, found: str, fix: str) -> Finding:
    return (problem if here.device == "cuda" else note)(found, fix)
