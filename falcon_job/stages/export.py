"""`falcon-job export`: package adapter, tokenizer, prompt and model card, and check the package by loading it.

Reads build/adapter, build/base.json, build/dataset and reports/eval.json; writes build/export and reports/export.json,
and on request a merged model under dist/.
"""

import logging
import shutil
from dataclasses import asdict
from pathlib import Path

from falcon_job.errors import InputError
from falcon_job.files import new_folder, read_json, sha256_file, write_json, write_text
from falcon_job.inference.bundle import PROMPT_FILE, SETTINGS_FILE
from falcon_job.inference.verification import check_package, merge, sample_trees
from falcon_job.machine import Machine
from falcon_job.model.loading import load_base
from falcon_job.model.precision import choose_device
from falcon_job.params import Params
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.reporting.model_card import model_card
from falcon_job.reporting.provenance import provenance
from falcon_job.sources.base_model import PinnedModel, locate
from falcon_job.tokens.tokenizer import load_tokenizer
from falcon_job.workspace import Workspace

logger = logging.getLogger(__name__)


def export(params: Params, machine: Machine, workspace: Workspace) -> None:
    """Write the package, once what is reloaded from it equals the adapter.

    Raises:
        InputError: there is no adapter, or no evaluation of it.
        JobError: the reloaded package, or the merged model, does not answer as the adapter does.
    """
    for path, stage in ((workspace.adapter / "adapter_config.json", "train"), (_scores(workspace), "evaluate")):
        if not path.is_file():
            raise InputError(f"{path} is missing: run `falcon-job run {stage}`")
    base_folder, device = locate(workspace), choose_device(machine)
    with new_folder(workspace.export) as folder:
        _fill(folder, base_folder, params, workspace)
        base = load_base(base_folder, params.model.precision, device)
        rows = sample_trees(workspace, params.export.verify)
        difference = check_package(folder, workspace.adapter, base, rows)
        _write_checksums(folder)
        report: dict[str, object] = {
            "files": sum(1 for _ in folder.iterdir()),
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "verified_questions": sum(len(row.questions) for row in rows),
            "largest_logit_difference": difference,
        }
    logger.info("reloaded from disk and equal on %d questions", report["verified_questions"])
    if params.export.merge:
        del base
        target = workspace.dist / f"{params.model.source.rsplit('/', 1)[-1]}-{params.prompt.template}"
        drift = merge(base_folder, workspace.adapter, target, params.model.precision, rows, device)
        hashes = {file.name: sha256_file(file) for file in sorted(target.iterdir())}
        report["merged"] = {"name": target.name, "drift": drift, "sha256": hashes}
        logger.info("merged model in %s, answers drift by %.1e", target, drift)
    write_json(workspace.reports / "export.json", report)


def _fill(folder: Path, base_folder: Path, params: Params, workspace: Workspace) -> None:
    """Write all files but the checksums."""
    for file in workspace.adapter.iterdir():
        shutil.copyfile(file, folder / file.name)
    load_tokenizer(base_folder).save_pretrained(str(folder))
    scores = read_json(_scores(workspace))
    dataset = read_json(workspace.dataset / "settings.json")
    made = provenance(workspace.root)
    write_json(folder / PROMPT_FILE, asdict(TEMPLATES[params.prompt.template]))
    write_json(
        folder / SETTINGS_FILE,
        {
            "base": PinnedModel.read(workspace.base).model_dump(),
            "dataset": dataset,
            "threshold": scores["threshold"],
            "params": params.model_dump(),
            "provenance": made,
        },
    )
    card = model_card(params, scores, made, closed_book=dataset["closed_book"])
    write_text(folder / "README.md", card)


def _scores(workspace: Workspace) -> Path:
    return workspace.reports / "eval.json"


def _write_checksums(folder: Path) -> None:
    """Write SHA256SUMS, as `sha256sum --check` reads it."""
    lines = [f"{sha256_file(file)}  {file.name}\n" for file in sorted(folder.iterdir())]
    write_text(folder / "SHA256SUMS", "".join(lines))
