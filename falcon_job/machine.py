"""What only changes speed or memory: FALCON_JOB_* variables, also read from a .env file; never params."""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from falcon_job.errors import InputError
from falcon_job.workspace import Workspace

Auto = Literal["auto"]


class Machine(BaseSettings):
    """Settings of this machine; `auto` is resolved where the setting is used."""

    model_config = SettingsConfigDict(env_prefix="FALCON_JOB_", extra="ignore", frozen=True)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    tokens_per_pack: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Slots of one packed row, and tokens of one batch of generation; auto: what fits the GPU."""
    attention: Literal["auto", "flex", "sdpa"] = "auto"
    """Kernel of attention in training: FlexAttention, block-sparse, or sdpa with a dense mask; auto: flex on a GPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether layers are compiled for training; auto: with FlexAttention."""
    activation_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Whether a layer's activations are computed again in the backward pass: least memory, slower; auto: where they
    would not fit the GPU."""
    workers: Auto | Annotated[int, Field(ge=0)] = "auto"
    """Processes that prepare packs while the model computes; auto: 0 on a CPU, else 2."""


@cache
def machine() -> Machine:
    """Return the settings of this machine.

    Raises:
        InputError: a variable has an impossible value.
    """
    try:
        return Machine(_env_file=_env_file())
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        for problem in error.errors():  # one for each type that a setting may have
            variable = f"FALCON_JOB_{str(problem['loc'][0]).upper()} (got {problem['input']!r})"
            problems.setdefault(variable, []).append(problem["msg"][:1].lower() + problem["msg"][1:])
        lines = [f"{variable}: {', or '.join(messages)}" for variable, messages in problems.items()]
        raise InputError("\n".join(lines)) from None
    except UnicodeDecodeError:
        raise InputError(f"{_env_file()} is not UTF-8: save it as UTF-8") from None


def _env_file() -> Path:
    """Return the clone's .env; outside a clone that of the current directory."""
    try:
        return Workspace.find().path(".env")
    except InputError:
        return Path(".env").absolute()
