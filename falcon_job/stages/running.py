"""Run a stage: check params, take its lock, write a log file, stop cleanly on signals, pass on its exit code."""

import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from traceback import TracebackException
from types import FrameType

import psutil

from falcon_job.errors import JobError, MachineError, Stopped
from falcon_job.files import write_json
from falcon_job.machine import Machine, read_machine
from falcon_job.params import Params, load_params
from falcon_job.stages.locks import lock
from falcon_job.workspace import Workspace

EXIT_CODE_FILE = "FALCON_JOB_EXIT_CODE_FILE"
"""Variable with the file to which a failed stage writes its exit code for `run`. DVC turns every code into 255."""

RUN_PID = "FALCON_JOB_RUN_PID"
"""Variable with the process id of `run`. A stage stops when that process dies, since nothing else would stop it."""

WATCH_SECONDS = 0.5

logger = logging.getLogger("falcon_job")


def run_stage(name: str) -> None:
    """Run the stage `name` in the workspace of the current directory.

    Raises:
        InputError: params.yaml or a machine setting is invalid; nothing was run.
        JobError: the stage failed, or another process is running it. The log file holds the traceback.
        Stopped: SIGTERM or SIGINT arrived.
    """
    if name != "fetch":
        _hide_hub_token()
    with _exit_code_left_for_run(), _stop_on_signals():
        _stop_when_run_dies()
        workspace = Workspace.find()
        params, machine = load_params(workspace.params), read_machine(workspace.root)
        _set_library_defaults(workspace)
        _log_to_console_and_file(workspace, name)
        with _failure_logged(), lock(workspace, name):
            stage = _load_stage(name)
            started = time.perf_counter()
            with _out_of_memory_explained(name):
                stage(params, machine, workspace)
            seconds = round(time.perf_counter() - started, 2)
            write_json(workspace.scratch / "times" / f"{name}.json", {"seconds": seconds})
            logger.info("done in %.1f s", seconds)


def _load_stage(name: str) -> Callable[[Params, Machine, Workspace], None]:
    """Import the module of a stage, with the heavy libraries it needs, and return its function."""
    stage: Callable[[Params, Machine, Workspace], None] = getattr(
        importlib.import_module(f"falcon_job.stages.{name}"), name
    )
    return stage


def _hide_hub_token() -> None:
    """Hide the Hub token, including a saved one, from the libraries that a stage loads. Only fetch needs it."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        os.environ.pop(name, None)
    os.environ["HF_TOKEN_PATH"] = os.devnull  # read when huggingface_hub is imported


def _set_library_defaults(workspace: Workspace) -> None:
    """Set environment variables that libraries read when they are imported, unless they are already set.

    Kernels compiled by torch are kept for the next run. They are chosen without benchmarking, so that equal runs give
    bit-identical results. SQLite writes its temporary files to the clone, because /tmp of a container may be in memory.
    """
    for variable, value in (
        ("TORCHINDUCTOR_CACHE_DIR", str(workspace.kernels)),
        ("TORCHINDUCTOR_DETERMINISTIC", "1"),
        ("SQLITE_TMPDIR", str(workspace.scratch)),
    ):
        os.environ[variable] = os.environ.get(variable) or value


def _log_to_console_and_file(workspace: Workspace, name: str) -> None:
    """Send our own messages to the console, and all messages, including library warnings, to a new log file."""
    folder = workspace.scratch / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(folder / f"{datetime.now():%Y%m%d-%H%M%S}-{name}.log", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    logging.getLogger().addHandler(file)
    logger.addHandler(console)
    logger.setLevel(logging.INFO)


@contextmanager
def _failure_logged() -> Iterator[None]:
    """Write the traceback of an error, with all its causes, to the log file. The console only gets the message."""
    try:
        yield
    except Exception as error:
        logging.getLogger().error("the stage failed\n%s", _traceback_with_causes(error))  # not to the console
        raise


def _traceback_with_causes(error: Exception) -> str:
    """Return the traceback of an error and of all its causes, including those hidden by `raise ... from None`."""
    whole = TracebackException.from_exception(error)
    link: TracebackException | None = whole
    while link:
        link.__suppress_context__ = False
        link = link.__cause__ or link.__context__
    return "".join(whole.format())


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM and SIGINT. Further signals do not interrupt the cleanup.

    Python drops an exception that is raised while it runs a finalizer or forks. The next signal then raises it again.
    """
    owner = os.getpid()
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner or _is_stopping():  # a DataLoader worker ends with its parent
            return
        received.append(number)
        raise Stopped(number)

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except Exception:
        if received:  # such as a DataLoader's error that its workers, which also got the signal, have exited
            raise Stopped(received[0]) from None
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _is_stopping() -> bool:
    """Tell whether the exception being handled is `Stopped`, or was raised while handling it."""
    error = sys.exception()
    while error and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None


def _stop_when_run_dies() -> None:
    """Start a thread that stops this stage when the `falcon-job run` that started it has died."""
    if RUN_PID not in os.environ:
        return

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            run = psutil.Process(int(os.environ[RUN_PID]))
            while run.is_running() and run.status() != psutil.STATUS_ZOMBIE:
                time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _out_of_memory_explained(name: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into one that says which settings to change."""
    try:
        yield
    except RuntimeError as error:
        from torch import OutOfMemoryError  # not at the top: stages that need no torch start without it

        if not isinstance(error, OutOfMemoryError):
            raise
        raise MachineError(
            "ran out of GPU memory",
            place=f"Stage {name}",
            fix="lower FALCON_JOB_TOKENS_PER_PACK, set FALCON_JOB_ACTIVATION_CHECKPOINTING=on (for training), or use "
            "model.precision nf4",
        ) from error


@contextmanager
def _exit_code_left_for_run() -> Iterator[None]:
    """Write the exit code of a `JobError` or `Stopped` to the file that `falcon-job run` has named."""
    try:
        yield
    except (JobError, Stopped) as error:
        if path := os.environ.get(EXIT_CODE_FILE):
            Path(path).write_text(str(error.exit_code), encoding="utf-8")
        raise
