"""What a training run did and how fast, in this process."""

import sys
from dataclasses import astuple, dataclass

import torch


@dataclass
class Speed:
    """Counts over the steps of this process; after a resume, of the steps since.

    Attributes:
        questions: answered in training.
        logical_tokens: as if each question stood with its own copy of the passage.
        executed_tokens: slots that were computed.
        supervised_tokens: answer tokens.
    """

    questions: int = 0
    logical_tokens: int = 0
    executed_tokens: int = 0
    supervised_tokens: int = 0

    def add(self, questions: int, logical_tokens: int, executed_tokens: int, supervised_tokens: int) -> None:
        """Count a step."""
        self.questions += questions
        self.logical_tokens += logical_tokens
        self.executed_tokens += executed_tokens
        self.supervised_tokens += supervised_tokens

    def since(self, earlier: "Speed") -> "Speed":
        """Return what was counted after `earlier`."""
        return Speed(*(now - before for now, before in zip(astuple(self), astuple(earlier), strict=True)))

    def report(self, seconds: float) -> dict[str, float]:
        """Return the `speed` of train.json for a run of `seconds`."""
        return {
            "seconds": round(seconds, 2),
            "questions_per_second": round(self.questions / seconds, 2),
            "logical_tokens_per_second": round(self.logical_tokens / seconds, 1),
            "executed_tokens_per_second": round(self.executed_tokens / seconds, 1),
            "supervised_tokens": self.supervised_tokens,
            "peak_memory_gb": round(peak_memory() / 1e9, 3),
        }


def peak_memory() -> int:
    """Return the most bytes held so far: of the GPU where there is one, else of this process (0 on Windows)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
