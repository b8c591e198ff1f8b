"""What is needed to answer: a base model, an adapter, a prompt; from an export or from the files of the clone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from falcon_job.errors import InputError, first_line
from falcon_job.files import read_json
from falcon_job.params import Params, load_params, validate
from falcon_job.qa.prompt import TEMPLATES, PromptTemplate
from falcon_job.sources.base_model import PinnedModel
from falcon_job.workspace import Workspace

PROMPT_FILE = "prompt.json"
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Package:
    """A trained adapter and all that its answers depend on.

    Attributes:
        folder: adapter_model.safetensors, adapter_config.json.
        base: the base model it was trained on.
        params: of the run.
        template: the prompt it was trained with.
        max_tokens: longest passage, question and answer, in tokens.
        answer_tokens: tokens kept free for an answer.
        closed_book: whether it was trained without passages.
    """

    folder: Path
    base: PinnedModel
    params: Params
    template: PromptTemplate
    max_tokens: int
    answer_tokens: int
    closed_book: bool


def open_package(folder: Path | None, workspace: Workspace) -> Package:
    """Return the package in `folder`; None: the clone's export if there is one, else its adapter.

    Raises:
        InputError: there is none, or a file of it is missing or damaged.
    """
    if folder is None:
        folder = workspace.export if workspace.export.is_dir() else workspace.adapter
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder} holds no adapter: run `falcon-job run`, or name an export with --from")
    if (folder / SETTINGS_FILE).is_file():
        return _open_export(folder)
    params = load_params(workspace.params)
    return Package(
        folder=folder,
        base=PinnedModel.read(workspace.base),
        params=params,
        template=TEMPLATES[params.prompt.template],
        **_read(workspace.dataset / "settings.json", "run `falcon-job run preprocess`"),
    )


def _open_export(folder: Path) -> Package:
    again = "copy the export again, whole, or run `falcon-job run export`"
    settings, prompt = (_read(folder / name, again) for name in (SETTINGS_FILE, PROMPT_FILE))
    try:
        return Package(
            folder=folder,
            base=PinnedModel(**settings["base"]),
            params=validate(settings["params"], str(folder / SETTINGS_FILE)),
            template=PromptTemplate(**prompt),
            **settings["dataset"],
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise InputError(f"{folder}: its settings are damaged ({first_line(error)}): {again}") from error


def _read(path: Path, remedy: str) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {remedy}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({first_line(error)}): {remedy}") from None
