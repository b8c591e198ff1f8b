"""The errors a user can act on, each with the exit code that `falcon-job` returns for it.

Every message says what is wrong, where (file, key, article, question id) and what to do.
"""


class JobError(Exception):
    """The run failed."""

    exit_code = 1


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
