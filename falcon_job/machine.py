"""What only changes speed or memory: FALCON_JOB_* variables, also read from a .env file; never params.

They are read once, where a command or a stage starts, and handed on from there. `auto` is resolved where the setting is
used, from what the model and the GPU are.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import PlainValidator, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from falcon_job.errors import InputError, Problem
from falcon_job.validation import explain, nearest

PREFIX = "FALCON_JOB_"
OTHER_VARIABLES = {"IMAGE", "EXIT_CODE_FILE", "RUN_PID", "SQUAD", "TEST_IMAGE"}
"""What the image, `falcon-job run` and the tests set for themselves."""

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
            raise ValueError(f"must be auto or a whole number of at least {smallest}, not {value!r}")
        return number

    return check


class Machine(BaseSettings):
    """Settings of this machine."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    tokens_per_pack: Annotated[int | Literal["auto"], PlainValidator(_auto_or_at_least(1))] = "auto"
    """Most tokens of a pack in training, and of a batch in generation; auto: what fits the GPU."""
    attention: Literal["auto", "flex", "sdpa"] = "auto"
    """Attention kernel in training: FlexAttention with a block-sparse mask, or sdpa with a dense one; auto: flex on a
    GPU."""
    compile: Switch = "auto"
    """Whether decoder layers are compiled for training; auto: with FlexAttention."""
    activation_checkpointing: Switch = "auto"
    """Whether activations are computed again in the backward pass, which is slower and takes the least memory; auto:
    where they would not fit the GPU."""
    workers: Annotated[int | Literal["auto"], PlainValidator(_auto_or_at_least(0))] = "auto"
    """Processes that prepare packs while the model computes; auto: 0 on a CPU, 2 on a GPU."""


def read_machine(folder: Path) -> Machine:
    """Return the settings in the environment and, where that does not set them, in `folder`/.env.

    Raises:
        InputError: a variable is unknown or has an impossible value, or .env is not UTF-8. All are named at once.
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
        Problem("is not a known variable", name, nearest(name, settings))
        for name in sorted(variables)
        if name.startswith(PREFIX) and name not in known
    ]
