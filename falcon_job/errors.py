"""The errors a user can act on, each with the exit code that `falcon-job` returns for it.

Every error says where something is wrong (a file, a key, an article, a question id), what is wrong, and what to do.
These are fields, so that `doctor` and reports can show them apart. The place is the subject of the sentence:

    raise InputError("is not UTF-8", place="notes.txt", fix="save it as UTF-8")

reads "notes.txt is not UTF-8: save it as UTF-8". Without a place the problem is a whole sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SHOWN_PROBLEMS = 50
"""Most problems that one message lists."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: "PLACE PROBLEM: FIX".

    Attributes:
        problem: what is wrong, as a predicate of the place; a whole sentence without one.
        place: a file, a key, an article, a question id.
        fix: what to do about it; "" where the error that lists the problem says it.
    """

    problem: str
    place: str = ""
    fix: str = ""

    def __str__(self) -> str:
        sentence = f"{self.place} {self.problem}" if self.place else self.problem
        return f"{sentence}: {self.fix}" if self.fix else sentence


class JobError(Exception):
    """The run failed.

    Attributes:
        problem, place, fix: as in `Problem`.
        problems: the single problems, where the error sums up several.
    """

    exit_code = 1

    def __init__(
        self, problem: str, *, place: str | Path = "", fix: str = "", problems: Sequence[Problem] = ()
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = str(place)
        self.fix = fix
        self.problems = tuple(problems)

    @classmethod
    def listing(cls, place: str | Path, problems: Sequence[Problem], *, fix: str = "") -> Self:
        """Return an error that lists what is wrong in one place."""
        return cls(f"has {len(problems)} problem{'s' * (len(problems) > 1)}", place=place, fix=fix, problems=problems)

    def __str__(self) -> str:
        """Return the message: one line, and one more for each problem listed."""
        lines = [str(Problem(self.problem, self.place, self.fix))]
        lines += [f"  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"  ... and {len(self.problems) - SHOWN_PROBLEMS} more")
        return "\n".join(lines)


class InputError(JobError):
    """Bad params, data or usage."""

    exit_code = 2


class MachineError(JobError):
    """The work does not fit this machine."""

    exit_code = 3


class Stopped(BaseException):
    """A signal asked the process to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message, for an error of ours that quotes it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
