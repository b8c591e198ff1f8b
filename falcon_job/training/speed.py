"""Counts and throughput of a training run."""

import sys
from dataclasses import astuple, dataclass

import torch


@dataclass
class Speed:
    """Counts over the steps of this process; steps before a resume are not included.

    Attributes:
        branches: number of branches, each of which is a question.
        logical_tokens: number of tokens if each branch had its own copy of the prefix.
        executed_tokens: number of tokens that were computed, including padding.
        completion_tokens: tokens with a loss.
    """

    branches: int = 0
    logical_tokens: int = 0
    executed_tokens: int = 0
    completion_tokens: int = 0

    def add(self, branches: int, logical_tokens: int, executed_tokens: int, completion_tokens: int) -> None:
        """Add the counts of one step."""
        self.branches += branches
        self.logical_tokens += logical_tokens
        self.executed_tokens += executed_tokens
        self.completion_tokens += completion_tokens

    def since(self, earlier: "Speed") -> "Speed":
        """Return the counts since `earlier`, a previous copy of this object."""
        return Speed(*(now - before for now, before in zip(astuple(self), astuple(earlier), strict=True)))

    def report(self, seconds: float) -> dict[str, float]:
        """Return the `speed` entry of train.json for a run that took `seconds`."""
        return {
            "seconds": round(seconds, 2),
            "questions_per_second": round(self.branches / seconds, 2),
            "logical_tokens_per_second": round(self.logical_tokens / seconds, 1),
            "executed_tokens_per_second": round(self.executed_tokens / seconds, 1),
            "supervised_tokens": self.completion_tokens,
            "peak_memory_gb": round(peak_memory() / 1e9, 3),
        }


def peak_memory() -> int:
    """Return the peak memory so far in bytes: of the GPU if there is one, else of this process (0 on Windows)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
