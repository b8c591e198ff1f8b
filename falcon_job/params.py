"""params.yaml as typed, frozen and validated settings: every value that changes a result. None has a default in code.

The file is parsed as YAML 1.2, as in DVC, so `1e-05` is a number. All problems of a file are reported at once, each
with its dotted path, before anything heavy is imported.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from falcon_job.errors import InputError
from falcon_job.validation import WrongValueError, explain, quoted

Precision = Literal["fp32", "fp16", "bf16", "fp8", "nf4"]
Template = Literal["squad-v2", "seed"]


def _is_sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise WrongValueError(f"must be the 64 hex digits that `sha256sum FILE` prints, not {quoted(value)}")
    return value


PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Sha256 = Annotated[str, AfterValidator(_is_sha256)]


class Group(BaseModel):
    """A group of keys. Unknown keys are errors, and values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelParams(Group):
    """The frozen base model."""

    source: str = Field(min_length=1)
    """A local folder (DVC tracks it only under data/) or a Hub id such as `tiiuae/falcon-7b`."""
    revision: str | None
    """The full commit hash (40 hex digits) for a Hub id, null for a folder."""
    precision: Precision
    """How the frozen base model is stored and computed."""

    @field_validator("revision")
    @classmethod
    def _pinned(cls, revision: str | None, info: ValidationInfo) -> str | None:
        if revision is not None and not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise WrongValueError(
                f"must be a full commit hash (40 hex digits), not {quoted(revision)}",
                "copy it from the Hub, under 'History'",
            )
        source = info.data.get("source")
        if revision is not None and source is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
            raise WrongValueError(
                f"is only for a Hub id (owner/name), but model.source is {quoted(source)}",
                "set it to null for a folder",
            )
        return revision


class DatasetParams(Group):
    """The train and dev questions: each a file (DVC tracks it under data/) or an https URL."""

    train: str = Field(min_length=1)
    dev: str = Field(min_length=1)
    train_sha256: Sha256 | None
    dev_sha256: Sha256 | None

    @field_validator("train_sha256", "dev_sha256")
    @classmethod
    def _known_for_a_url(cls, sha256: str | None, info: ValidationInfo) -> str | None:
        if sha256 is None and is_url(info.data.get(str(info.field_name).removesuffix("_sha256"), "")):
            raise WrongValueError("must be set for a URL", "set it to what `sha256sum FILE` prints")
        return sha256


class PromptParams(Group):
    """How passages and questions are put to the model."""

    template: Template


class PreprocessParams(Group):
    """How question files become tokens."""

    max_tokens: Annotated[int, Field(ge=32)]
    """The most tokens of a passage, a question and its answer together; longer passages are split into windows."""
    validation_fraction: Share
    """The fraction of train that is held out: whole articles, or whole passages if there are fewer than 10 articles."""
    limit: PositiveInt | None
    """The largest number of train questions, drawn by whole passages; null: all."""
    seed: Annotated[int, Field(ge=0)]
    """Seed for the validation split, the passages that `limit` keeps and the window that each question trains on."""


class LoraParams(Group):
    """The LoRA adapter; keys as in `peft.LoraConfig`, without the prefix `lora_`."""

    r: PositiveInt
    alpha: Annotated[float, Field(gt=0)]
    dropout: Share
    target_modules: Annotated[list[str], Field(min_length=1)]
    use_rslora: bool
    use_dora: bool


class TrainParams(Group):
    """The optimization; most keys are named as in `transformers.TrainingArguments`."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    epochs: PositiveInt
    learning_rate: Annotated[float, Field(gt=0)]
    questions_per_step: PositiveInt
    """Questions per optimizer step, however they are packed."""
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"]
    scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"]
    warmup_ratio: Share
    """The fraction of all steps in which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    logging_steps: PositiveInt
    eval_steps: PositiveInt | None
    """Steps between validation losses. There is always one at the end of each epoch; null: no others."""
    save_total_limit: PositiveInt
    """How many checkpoints are kept under scratch/ while training runs."""
    report_to: list[str]
    """Trackers that transformers.Trainer reports to, such as tensorboard or wandb; an empty list: none."""

    @field_validator("warmup_ratio")
    @classmethod
    def _has_a_warmup(cls, ratio: float, info: ValidationInfo) -> float:
        if ratio > 0 and info.data.get("scheduler") == "constant":
            raise WrongValueError(
                f"is {ratio}, but the scheduler constant has no warmup", "set it to 0, or use constant_with_warmup"
            )
        return ratio


class EvaluateParams(Group):
    """How answers are produced and scored."""

    max_new_tokens: PositiveInt
    limit: PositiveInt | None
    """The largest number of dev questions, in whole passages spread evenly over the file; null: all."""
    extractive: bool
    """Whether an answer that does not occur in the passage is replaced by the nearest span that does."""


class ExportParams(Group):
    """The exported bundle and the merged model."""

    merge: bool
    """Whether a merged model is also written to dist/."""
    verify: PositiveInt
    """How many validation questions must get the same logits from the reloaded export as from the adapter."""


class Params(Group):
    """All of params.yaml."""

    model: ModelParams
    dataset: DatasetParams
    prompt: PromptParams
    preprocess: PreprocessParams
    lora: LoraParams
    train: TrainParams
    evaluate: EvaluateParams
    export: ExportParams


def is_url(source: str) -> bool:
    """Tell whether a source is a URL, not a path."""
    return source.startswith(("https://", "http://"))


def load_params(path: Path) -> Params:
    """Read and validate params.yaml.

    Raises:
        InputError: the file is missing, is not a YAML mapping, or has wrong keys or values; one message lists them all.
    """
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("is missing", place=path, fix="write one with `falcon-job preset demo`") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", place=path, fix="make it readable") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"is not valid YAML ({' '.join(str(error).split())})", place=path, fix="correct it") from error
    if not isinstance(content, dict):
        raise InputError(
            "must hold groups of keys (model, dataset, ...)", place=path, fix="write one with `falcon-job preset demo`"
        )
    return validate(content, str(path))


def validate(content: dict[str, Any], place: str) -> Params:
    """Return `content` as `Params`; `place` names its file in errors.

    Raises:
        InputError: keys are unknown or missing, or values are wrong; one message lists them all.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError.listing(place, explain(error, known=_known_keys())) from None


def _known_keys() -> list[str]:
    groups = {name: field.annotation for name, field in Params.model_fields.items()}
    keys = [f"{group}.{key}" for group, model in groups.items() if model for key in model.model_fields]
    return [*groups, *keys]
