"""Errors that a user can act on, each with the exit code that `falcon-job` returns for it.

Every error says where something is wrong (a file, a key, an article, a question id), what is wrong, and what to do.
These are fields, so that `doctor` and reports can show them separately. The place is the subject of the sentence:

    raise InputError("is not UTF-8", place="notes.txt", fix="save it as UTF-8")

reads "notes.txt is not UTF-8: save it as UTF-8". Without a place, the problem must be a whole sentence.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SHOWN_PROBLEMS = 50
"""The largest number of problems that one message lists."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: "PLACE PROBLEM: FIX".

    Attributes:
        problem: what is wrong, as the predicate of a sentence about the place; a whole sentence if there is no place.
        place: a file, a key, an article, a question id.
        fix: what to do about it; "" if the error that lists this problem has a fix for all.
    """

    problem: str
    place: str = ""
    fix: str = ""

    def __str__(self) -> str:
        sentence = f"{self.place} {self.problem}" if self.place else self.problem
        return f"{sentence}: {self.fix}" if self.fix else sentence


class ProblemList:
    """A list of problems that counts all of them, but keeps only the `SHOWN_PROBLEMS` that a message shows.

    A file with a million bad records therefore takes no more memory than one with fifty.
    """

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self._shown: list[Problem] = []
        self._count = 0
        self.extend(problems)

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it if it will be shown."""
        self._count += 1
        if len(self._shown) < SHOWN_PROBLEMS:
            self._shown.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add each of several problems."""
        for problem in problems:
            self.add(problem)

    def __len__(self) -> int:
        """Return the number of all problems, shown or not."""
        return self._count

    def __iter__(self) -> Iterator[Problem]:
        """Yield the problems that are shown."""
        return iter(self._shown)

    def lines(self) -> list[str]:
        """Return one line for each problem shown, and a last line with the number of the others."""
        hidden = self._count - len(self._shown)
        return [str(problem) for problem in self._shown] + [f"... and {hidden} more"] * (hidden > 0)


class JobError(Exception):
    """The run failed.

    Attributes:
        problem, place, fix: as in `Problem`.
        problems: the individual problems, if the error summarizes several.
    """

    exit_code = 1

    def __init__(
        self, problem: str, *, place: str | Path = "", fix: str = "", problems: Iterable[Problem] = ()
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = str(place)
        self.fix = fix
        self.problems = problems if isinstance(problems, ProblemList) else ProblemList(problems)

    @classmethod
    def listing(cls, place: str | Path, problems: Iterable[Problem], *, fix: str = "") -> Self:
        """Return an error that lists all problems of one place."""
        found = problems if isinstance(problems, ProblemList) else ProblemList(problems)
        return cls(f"has {len(found)} problem{'s' * (len(found) > 1)}", place=place, fix=fix, problems=found)

    def __str__(self) -> str:
        """Return the message: one line, and one more for each problem listed."""
        head = str(Problem(self.problem, self.place, self.fix))
        return "\n".join([head, *(f"  {line}" for line in self.problems.lines())])


class InputError(JobError):
    """Bad params, data or usage."""

    exit_code = 2


class MachineError(JobError):
    """The job cannot run on this machine."""

    exit_code = 3


class Stopped(BaseException):
    """A signal asked the process to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or its type if it has none, to quote it in one of ours."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
