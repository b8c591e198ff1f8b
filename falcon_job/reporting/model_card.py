"""The model card of an export: what was trained, what it scores, and how to use it."""

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from ruamel.yaml import YAML

from falcon_job.model.precision import PRECISIONS
from falcon_job.params import Params
from falcon_job.qa.prompt import TEMPLATES

TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def model_card(params: Params, scores: Mapping[str, Any], provenance: Mapping[str, Any], *, closed_book: bool) -> str:
    """Return the card as Markdown, with the metadata that the Hub reads.

    Args:
        params: the params of the run.
        scores: content of reports/eval.json.
        provenance: the result of `falcon_job.reporting.provenance.provenance`.
        closed_book: whether the model was trained without passages.
    """
    title = f"{params.model.source.rsplit('/', 1)[-1]} fine-tuned to answer questions"
    card = ModelCard.from_template(
        _metadata(title, params, scores),
        template_path=str(TEMPLATE),
        title=title,
        params=params.model_dump(),
        params_yaml=_yaml(params),
        scores=scores,
        template=asdict(TEMPLATES[params.prompt.template]),
        provenance=provenance,
        closed_book=closed_book,
        dtype=str(PRECISIONS[params.model.precision].dtype).removeprefix("torch."),
    )
    return str(card)


def _metadata(title: str, params: Params, scores: Mapping[str, Any]) -> ModelCardData:
    results = [
        EvalResult(
            task_type="question-answering",
            dataset_type="squad_v2",
            dataset_name=Path(params.dataset.dev).name,
            metric_type=metric,
            metric_value=round(float(scores[metric]), 2),
        )
        for metric in ("exact", "f1")
    ]
    return ModelCardData(
        model_name=title,
        base_model=params.model.source if params.model.revision else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "question-answering", "falcon_job"],
        eval_results=results,
    )


def _yaml(params: Params) -> str:
    yaml = YAML()
    yaml.default_flow_style = False
    buffer = io.StringIO()
    yaml.dump(params.model_dump(), buffer)
    return buffer.getvalue()
