"""Run one stage: params checked first, its lock held, a log file, clean stops, time and exit code left for `run`."""

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
from types import FrameType

import psutil

from falcon_job.errors import JobError, MachineError, Stopped
from falcon_job.files import write_json
from falcon_job.machine import Machine, read_machine
from falcon_job.params import Params, load_params
from falcon_job.stages.locks import lock
from falcon_job.workspace import Workspace

EXIT_CODE_FILE = "FALCON_JOB_EXIT_CODE_FILE"
"""Names the file in which `run` finds a failed stage's exit code: DVC answers 255 for all of them."""

RUN_PID = "FALCON_JOB_RUN_PID"
"""Names the process of `run`, without which no stage goes on: once it is killed, nobody could stop them."""

WATCH_SECONDS = 0.5

logger = logging.getLogger("falcon_job")


def run_stage(name: str) -> None:
    """Run stage `name` in the workspace around the current directory."""
    if name != "fetch":
        _forget_token()
    with _exit_code_left_for_run(), _stopped_by_signals():
        _watch_run()
        workspace = Workspace.find()
        params, machine = load_params(workspace.params), read_machine(workspace.root)
        _set_up_libraries(workspace)
        _log_to_console_and_file(workspace, name)
        with lock(workspace, name):
            work: Callable[[Params, Machine, Workspace], None] = getattr(
                importlib.import_module(f"falcon_job.stages.{name}"), name
            )
            started = time.perf_counter()
            with _out_of_memory_explained(name):
                work(params, machine, workspace)
            seconds = round(time.perf_counter() - started, 2)
            write_json(workspace.scratch / "times" / f"{name}.json", {"seconds": seconds})
            logger.info("done in %.1f s", seconds)


def _forget_token() -> None:
    """Keep the Hub's token, a saved one too, from what a stage loads, trackers included: fetch alone needs it."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        os.environ.pop(name, None)
    os.environ["HF_TOKEN_PATH"] = os.devnull  # read when huggingface_hub is imported


def _set_up_libraries(workspace: Workspace) -> None:
    """Set what libraries, not imported yet, read from the environment, where the caller does not.

    What torch compiles is kept for the next run, and kernels are chosen without a race: equal runs, equal bits.
    SQLite's temporary files lie in the clone, since a container's /tmp may be memory.
    """
    for variable, value in (
        ("TORCHINDUCTOR_CACHE_DIR", str(workspace.kernels)),
        ("TORCHINDUCTOR_DETERMINISTIC", "1"),
        ("SQLITE_TMPDIR", str(workspace.scratch)),
    ):
        os.environ[variable] = os.environ.get(variable) or value


def _log_to_console_and_file(workspace: Workspace, name: str) -> None:
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
def _stopped_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into `Stopped`; what cleans up is not stopped again.

    An exception that comes while Python runs a finalizer, or forks, is lost: the next signal raises it anew.
    """
    owner = os.getpid()
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner or _is_stopping():  # a worker of a DataLoader ends with its owner
            return
        received.append(number)
        raise Stopped(number)

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except Exception:
        if received:  # a DataLoader complains of its workers, which got the signal too
            raise Stopped(received[0]) from None
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _is_stopping() -> bool:
    """Tell whether `Stopped` is on its way up, or led to the error that is."""
    error = sys.exception()
    while error and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None


def _watch_run() -> None:
    """Stop this stage when the `run` that started it dies without a word."""
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
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        raise MachineError(
            f"{name} does not fit the GPU: set FALCON_JOB_TOKENS_PER_PACK lower, for training also "
            "FALCON_JOB_ACTIVATION_CHECKPOINTING=on, or use model.precision nf4"
        ) from error


@contextmanager
def _exit_code_left_for_run() -> Iterator[None]:
    try:
        yield
    except (JobError, Stopped) as error:
        if path := os.environ.get(EXIT_CODE_FILE):
            with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
                file.write(str(error.exit_code))
        raise
