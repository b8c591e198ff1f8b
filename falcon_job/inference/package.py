"""What is needed to answer: a base model, an adapter, a prompt; from an export or from the files of the clone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falcon_job.errors import InputError
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
        InputError: there is none.
    """
    if folder is None:
        folder = workspace.export if workspace.export.is_dir() else workspace.adapter
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder} holds no adapter: run `falcon-job run`, or name an export with --from")
    if (folder / SETTINGS_FILE).is_file():
        settings = read_json(folder / SETTINGS_FILE)
        template = PromptTemplate(**read_json(folder / PROMPT_FILE))
        params = validate(settings["params"], str(folder / SETTINGS_FILE))
        return _package(folder, PinnedModel(**settings["base"]), params, template, settings["dataset"])
    params = load_params(workspace.params)
    template = TEMPLATES[params.prompt.template]
    dataset = read_json(workspace.dataset / "settings.json")
    return _package(folder, PinnedModel.read(workspace.base), params, template, dataset)


def _package(
    folder: Path, base: PinnedModel, params: Params, template: PromptTemplate, dataset: dict[str, Any]
) -> Package:
    return Package(folder=folder, base=base, params=params, template=template, **dataset)
