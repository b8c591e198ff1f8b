"""Machine settings: FALCON_JOB_* variables, from the environment or a .env file, that only change speed or memory.

Commands and stages read them once, at the start, and pass them on. `auto` is resolved where a setting is used, from the
model and the GPU.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import PlainValidator, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from falcon_job.errors import InputError, Problem
from falcon_job.validation import WrongValueError, explain, nearest, quoted

PREFIX = "FALCON_JOB_"
OTHER_VARIABLES = {"IMAGE", "EXIT_CODE_FILE", "RUN_PID", "SQUAD", "TEST_IMAGE"}
"""Variables with this prefix that are not settings: the image, `falcon-job run` and the tests use them."""

Switch = Literal["auto", "on", "off"]


def _auto_or_at_least(smallest: int) -> Callable[[Any], int | Literal["auto"]]:
    def check(value: Any) -> int | Literal["auto"]:
        if value == "auto":
            return "auto"
        try:
            number = int(value)
        except ValueError:
            number = smallest - 1
        if number < smallest:
            raise WrongValueError(f"must be auto or a whole number of at least {smallest}, not {quoted(value)}")
        return number

    return check


class Machine(BaseSettings):
    """The settings of this machine, read from the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto: on the GPU if there is one."""
    tokens_per_pack: Annotated[int | Literal["auto"], PlainValidator(_auto_or_at_least(1))] = "auto"
    """The most tokens in a training pack or a generation batch; auto: packs that fit in memory, batches of 8,192."""
    attention: Literal["auto", "flex", "sdpa"] = "auto"
    """The attention kernel in training: FlexAttention with a block-sparse mask, or SDPA with a dense one; auto: flex on
    a GPU."""
    compile: Switch = "auto"
    """Whether decoder layers are compiled for training; auto: if FlexAttention is used."""
    activation_checkpointing: Switch = "auto"
    """Whether the backward pass recomputes activations, which is slower but takes the least memory; auto: if they would
    not fit in the GPU's memory."""
    workers: Annotated[int | Literal["auto"], PlainValidator(_auto_or_at_least(0))] = "auto"
    """How many processes prepare packs while the model computes; auto: 0 on a CPU, 2 on a GPU."""


def read_machine(folder: Path) -> Machine:
    """Return the settings from the environment and from `folder`/.env; the environment takes precedence.

    Raises:
        InputError: a variable is unknown or its value is wrong, or .env is not UTF-8. One message lists all problems.
    """
    file = folder / ".env"
    try:
        in_file = dotenv_values(file)
        problems = _unknown({*os.environ, *in_file})
        machine = Machine(_env_file=file)
    except UnicodeDecodeError:
        raise InputError("is not UTF-8", place=file, fix="save it as UTF-8") from None
    except ValidationError as error:
        problems += explain(error, name=lambda key: f"{PREFIX}{key.upper()}")
    if problems:
        raise InputError.listing("The environment", problems, fix="correct the environment, or .env")
    return machine


def _unknown(variables: set[str]) -> list[Problem]:
    known = [f"{PREFIX}{name.upper()}" for name in (*Machine.model_fields, *OTHER_VARIABLES)]
    settings = known[: len(Machine.model_fields)]
    return [
        Problem("is not a known variable", name, nearest(name, settings, prefix=PREFIX))
        for name in sorted(variables)
        if name.startswith(PREFIX) and name not in known
    ]
