"""What a training run has done, and how fast."""

import sys
from dataclasses import astuple, dataclass

import torch


@dataclass
class Speed:
    """Counts over the steps of this process; after a resume, over the steps since.

    Attributes:
        branches: questions, where that is what branches are.
        logical_tokens: as if each branch stood with its own copy of the prefix.
        executed_tokens: slots that were computed, padding included.
        completion_tokens: tokens with a loss.
    """

    branches: int = 0
    logical_tokens: int = 0
    executed_tokens: int = 0
    completion_tokens: int = 0

    def add(self, branches: int, logical_tokens: int, executed_tokens: int, completion_tokens: int) -> None:
        """Count a step."""
        self.branches += branches
        self.logical_tokens += logical_tokens
        self.executed_tokens += executed_tokens
        self.completion_tokens += completion_tokens

    def since(self, earlier: "Speed") -> "Speed":
        """Return what was counted after `earlier`."""
        return Speed(*(now - before for now, before in zip(astuple(self), astuple(earlier), strict=True)))

    def report(self, seconds: float) -> dict[str, float]:
        """Return the `speed` of train.json, in the words of its readers, for a run of `seconds`."""
        return {
            "seconds": round(seconds, 2),
            "questions_per_second": round(self.branches / seconds, 2),
            "logical_tokens_per_second": round(self.logical_tokens / seconds, 1),
            "executed_tokens_per_second": round(self.executed_tokens / seconds, 1),
            "supervised_tokens": self.completion_tokens,
            "peak_memory_gb": round(peak_memory() / 1e9, 3),
        }


def peak_memory() -> int:
    """Return the most bytes held so far: on the GPU where there is one, else by this process (0 on Windows)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
