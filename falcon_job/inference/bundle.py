"""Open a bundle: all that is needed to answer questions (base model, adapter, prompt), from an export or this clone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from falcon_job.errors import InputError, first_line
from falcon_job.files import read_json
from falcon_job.params import Params, Template, load_params
from falcon_job.qa.prompt import TEMPLATES, PromptTemplate
from falcon_job.sources.base_model import PinnedModel
from falcon_job.validation import WrongValueError, explain
from falcon_job.workspace import Workspace

PROMPT_FILE = "prompt.json"
SETTINGS_FILE = "settings.json"
EXPORT_AGAIN = "copy the export again, or make a new one with `falcon-job run export`"

FileModel = TypeVar("FileModel", bound=BaseModel)


@dataclass(frozen=True)
class Bundle:
    """A trained adapter and everything that its answers depend on.

    Attributes:
        folder: holds adapter_model.safetensors and adapter_config.json.
        base: the base model that the adapter was trained on.
        params: the params of the run that trained it.
        template: the template of the prompts that it was trained on.
        max_tokens: maximum length of passage, question and answer together, in tokens.
        answer_tokens: how many of these tokens are reserved for the answer.
        closed_book: whether it was trained without passages.
    """

    folder: Path
    base: PinnedModel
    params: Params
    template: PromptTemplate
    max_tokens: int
    answer_tokens: int
    closed_book: bool


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatasetSettings(_File):
    """Content of build/dataset/settings.json, and of `dataset` in an export's settings.json; see `Bundle`."""

    max_tokens: int
    answer_tokens: int
    closed_book: bool


class ExportSettings(_File):
    """Content of an export's settings.json."""

    base: PinnedModel
    dataset: DatasetSettings
    threshold: float | None
    params: Params
    provenance: dict[str, Any]


def _with_field(field: str) -> AfterValidator:
    def check(text: str) -> str:
        if field not in text:
            raise WrongValueError(f"lacks {field}")
        return text

    return AfterValidator(check)


class _Prompt(_File):
    """Content of an export's prompt.json: the fields of `PromptTemplate`."""

    name: Template
    passage: Annotated[str, _with_field("{context}")]
    question: Annotated[str, _with_field("{question}")]
    closed_book: Annotated[str, _with_field("{question}")]
    answer: Annotated[str, _with_field("{answer}")]
    no_answer: str


def open_bundle(folder: Path | None, workspace: Workspace) -> Bundle:
    """Return the bundle in `folder`, which holds an export or an adapter.

    Args:
        folder: None means the export of this clone if there is one, else its adapter.
        workspace: this clone. If `folder` holds only an adapter, the rest of the bundle is read from here.

    Raises:
        InputError: the folder holds no adapter, or one of its files is missing or damaged.
    """
    if folder is None:
        folder = workspace.export if workspace.export.is_dir() else workspace.adapter
    if not (folder / "adapter_config.json").is_file():
        raise InputError(
            "holds no adapter", place=folder, fix="run `falcon-job run`, or name the folder of an export with --from"
        )
    is_export = (folder / SETTINGS_FILE).is_file()
    return _open_export(folder) if is_export else _open_adapter(folder, workspace)


def _open_export(folder: Path) -> Bundle:
    settings = _read(folder / SETTINGS_FILE, ExportSettings, EXPORT_AGAIN)
    return Bundle(
        folder=folder,
        base=settings.base,
        params=settings.params,
        template=read_prompt(folder),
        **settings.dataset.model_dump(),
    )


def _open_adapter(folder: Path, workspace: Workspace) -> Bundle:
    params = load_params(workspace.params)
    dataset = read_dataset_settings(workspace)
    return Bundle(
        folder=folder,
        base=PinnedModel.read(workspace.base),
        params=params,
        template=TEMPLATES[params.prompt.template],
        **dataset.model_dump(),
    )


def read_dataset_settings(workspace: Workspace) -> DatasetSettings:
    """Read the settings that preprocess wrote to build/dataset/settings.json.

    Raises:
        InputError: the file is missing or damaged.
    """
    return _read(workspace.dataset / "settings.json", DatasetSettings, "run `falcon-job run preprocess`")


def read_prompt(folder: Path) -> PromptTemplate:
    """Read prompt.json of an export.

    Raises:
        InputError: the file is missing or damaged.
    """
    return PromptTemplate(**_read(folder / PROMPT_FILE, _Prompt, EXPORT_AGAIN).model_dump())


def _read(path: Path, model: type[FileModel], fix: str) -> FileModel:
    """Read a JSON file and check its keys and values."""
    try:
        return model.model_validate(read_json(path))
    except FileNotFoundError:
        raise InputError("is missing", place=path, fix=fix) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", place=path, fix="make it readable") from error
    except ValidationError as error:
        raise InputError.listing(path, explain(error), fix=fix) from error
    except ValueError as error:
        raise InputError(f"is not valid JSON ({first_line(error)})", place=path, fix=fix) from error
