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


class Stopped(BaseException):  # noqa: N818 - like KeyboardInterrupt: not an error, and no `except Exception` may eat it
    """A signal asked the process to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number
