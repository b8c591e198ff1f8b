"""`falcon-job preprocess`: check the questions and tokenize them.

Reads build/raw and build/base.json (for the tokenizer); writes build/dataset/{train,validation,dev}.arrow, its
settings.json and reports/data.json.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from falcon_job.errors import InputError
from falcon_job.files import new_folder, write_json
from falcon_job.machine import Machine
from falcon_job.params import Params
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.records.comparison import check_same_kind, find_overlaps
from falcon_job.records.dataset import read_passages
from falcon_job.records.passage import Passage
from falcon_job.records.splits import split_validation, take_passages
from falcon_job.sources.base_model import locate
from falcon_job.tokens.dataset import Split, write_split
from falcon_job.tokens.examples import ExampleEncoder, Tally, count_merging
from falcon_job.tokens.report import SplitReport, count_questions, describe
from falcon_job.tokens.tokenizer import make_encoder
from falcon_job.workspace import Workspace

logger = logging.getLogger(__name__)

MERGES_TRIED = 200
"""How many passages are checked for tokens that merge across the pieces of a prompt."""


def preprocess(params: Params, machine: Machine, workspace: Workspace) -> None:
    """Write the tokenized splits and a report on them.

    Raises:
        InputError: records are wrong (one message lists all problems of a file), or the tokenizer cannot be used.
    """
    settings = params.preprocess
    encoder = make_encoder(locate(workspace), TEMPLATES[params.prompt.template])
    given, dev = (read_passages(_raw_file(workspace, split)) for split in ("train", "dev"))
    check_same_kind(given, dev)
    overlaps = find_overlaps(given, dev)
    chosen = take_passages(given, settings.limit, settings.seed)
    train, validation = split_validation(chosen, settings.validation_fraction, settings.seed)
    _warn(overlaps, count_merging(encoder, train[:MERGES_TRIED]))

    examples = ExampleEncoder(encoder, settings.max_tokens, settings.seed)
    with new_folder(workspace.dataset) as folder:
        report = _write_splits(folder, {"train": train, "validation": validation, "dev": dev}, examples)
    left_out = count_questions(given) - count_questions(chosen)
    write_json(workspace.reports / "data.json", {**report, "left_out_by_limit": left_out, "overlaps": len(overlaps)})
    _log(report)


def _raw_file(workspace: Workspace, split: str) -> Path:
    found = sorted(workspace.raw.glob(f"{split}.*"))
    if not found:
        raise InputError(f"has no {split} file", place=workspace.raw, fix="run `falcon-job run fetch`")
    return found[0]


def _write_splits(
    folder: Path, splits: Mapping[str, Sequence[Passage]], examples: ExampleEncoder
) -> dict[str, SplitReport]:
    """Write each split, and settings.json, which later stages read; return a report on each split."""
    files = {name: folder / f"{name}.arrow" for name in splits}
    tallies = {name: Tally() for name in splits}
    for name in ("train", "validation"):
        write_split(files[name], examples.training(splits[name], tallies[name]))
    train = Split(files["train"])
    if not len(train):
        dropped = ", ".join(f"{count} {reason}" for reason, count in tallies["train"].dropped.items() if count)
        raise InputError(
            f"has no question that can be trained on ({dropped})",
            place="dataset.train",
            fix="raise preprocess.max_tokens",
        )
    answer_tokens = train.longest_answer()
    write_split(files["dev"], examples.scoring(splits["dev"], answer_tokens, tallies["dev"]))
    closed_book = splits["train"][0].text is None
    write_json(
        folder / "settings.json",
        {"max_tokens": examples.max_tokens, "answer_tokens": answer_tokens, "closed_book": closed_book},
    )
    return {name: describe(passages, Split(files[name]), tallies[name]) for name, passages in splits.items()}


def _warn(overlaps: Sequence[str], merging: int) -> None:
    for overlap in overlaps:
        logger.warning("train and dev overlap: %s", overlap)
    if merging:
        logger.warning(
            "the tokenizer of model.source merges tokens across the pieces of a prompt (%d of the first %d passages), "
            "so the end of a passage and the start of an answer get other tokens here than in running text; training "
            "and inference use the same tokens",
            merging,
            MERGES_TRIED,
        )


def _log(report: Mapping[str, SplitReport]) -> None:
    logger.info("train has %(kept)d questions about %(passages)d passages", report["train"])
    for name, counts in report.items():
        for reason, count in counts["dropped"].items():
            if count:
                logger.warning("%s: dropped %d questions: %s", name, count, reason)
