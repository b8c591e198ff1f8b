"""`falcon-job export`: bundle adapter, tokenizer, prompt and model card, and check the bundle by loading it.

Reads build/adapter, build/base.json, build/dataset and reports/eval.json; writes build/export and reports/export.json
and, with `export.merge`, a merged model under dist/.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from falcon_job.errors import InputError
from falcon_job.files import new_folder, read_json, sha256_file, write_json, write_text
from falcon_job.inference.bundle import PROMPT_FILE, SETTINGS_FILE, read_dataset_settings
from falcon_job.inference.verification import sample_passages, verify_bundle, write_merged_model
from falcon_job.machine import Machine
from falcon_job.model.loading import load_base
from falcon_job.model.precision import choose_device
from falcon_job.params import Params
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.reporting.model_card import model_card
from falcon_job.reporting.provenance import provenance
from falcon_job.sources.base_model import PinnedModel, locate
from falcon_job.tokens.dataset import EncodedPassage
from falcon_job.tokens.tokenizer import load_tokenizer
from falcon_job.workspace import Workspace

logger = logging.getLogger(__name__)


def export(params: Params, machine: Machine, workspace: Workspace) -> None:
    """Write the bundle and, with `export.merge`, the merged model. Each replaces an older one only once it is verified.

    Raises:
        InputError: there is no adapter, or it has not been evaluated.
        JobError: the bundle or the merged model does not answer like the adapter.
    """
    _check_inputs(workspace)
    base_folder = locate(workspace)
    passages = sample_passages(workspace, params.export.verify)
    report = _write_bundle(base_folder, passages, params, machine, workspace)
    if params.export.merge:
        report["merged"] = _write_merged(base_folder, passages, params, machine, workspace)
    write_json(workspace.reports / "export.json", report)


def _check_inputs(workspace: Workspace) -> None:
    for path, stage in ((workspace.adapter / "adapter_config.json", "train"), (_scores_file(workspace), "evaluate")):
        if not path.is_file():
            raise InputError("is missing", place=path, fix=f"run `falcon-job run {stage}`")


def _scores_file(workspace: Workspace) -> Path:
    return workspace.reports / "eval.json"


def _write_bundle(
    base_folder: Path, passages: Sequence[EncodedPassage], params: Params, machine: Machine, workspace: Workspace
) -> dict[str, Any]:
    """Write and verify build/export; return the content of reports/export.json."""
    with new_folder(workspace.export) as folder:
        _fill(folder, base_folder, params, workspace)
        base = load_base(base_folder, params.model.precision, choose_device(machine))
        difference = verify_bundle(folder, workspace.adapter, base, passages)
        _write_checksums(folder)
        questions = sum(len(passage.questions) for passage in passages)
        logger.info("the bundle, reloaded from disk, gives the same logits as the adapter for %d questions", questions)
        files = list(folder.iterdir())
        return {
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
            "verified_questions": questions,
            "largest_logit_difference": difference,
        }


def _fill(folder: Path, base_folder: Path, params: Params, workspace: Workspace) -> None:
    """Write all files of the bundle except the checksums."""
    for file in workspace.adapter.iterdir():
        shutil.copyfile(file, folder / file.name)
    load_tokenizer(base_folder).save_pretrained(str(folder))
    write_json(folder / PROMPT_FILE, asdict(TEMPLATES[params.prompt.template]))
    scores = read_json(_scores_file(workspace))
    dataset = read_dataset_settings(workspace)
    made = provenance(workspace.root)
    settings = {
        "base": PinnedModel.read(workspace.base).model_dump(),
        "dataset": dataset.model_dump(),
        "threshold": scores["threshold"],
        "params": params.model_dump(),
        "provenance": made,
    }
    write_json(folder / SETTINGS_FILE, settings)
    write_text(folder / "README.md", model_card(params, scores, made, closed_book=dataset.closed_book))


def _write_checksums(folder: Path) -> None:
    """Write SHA256SUMS in the format of `sha256sum --check`."""
    lines = [f"{sha256_file(file)}  {file.name}\n" for file in sorted(folder.iterdir())]
    write_text(folder / "SHA256SUMS", "".join(lines))


def _write_merged(
    base_folder: Path, passages: Sequence[EncodedPassage], params: Params, machine: Machine, workspace: Workspace
) -> dict[str, Any]:
    """Write and verify the merged model in dist/; return its part of reports/export.json."""
    target = workspace.dist / f"{params.model.source.rsplit('/', 1)[-1]}-{params.prompt.template}"
    precision, device = params.model.precision, choose_device(machine)
    drift = write_merged_model(base_folder, workspace.adapter, target, precision, passages, device)
    logger.info("merged model in %s: log probabilities of answer tokens change by %.1e on average", target, drift)
    hashes = {file.name: sha256_file(file) for file in sorted(target.iterdir())}
    return {"name": target.name, "drift": drift, "sha256": hashes}
