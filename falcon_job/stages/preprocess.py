"""`falcon-job preprocess`: validate the questions and turn them into tokens.

Reads build/raw and build/base.json (the tokenizer); writes build/dataset/{train,validation,dev}.arrow and
reports/data.json.
"""

import logging
from array import array
from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from falcon_job.errors import InputError
from falcon_job.files import new_folder, write_json
from falcon_job.machine import Machine
from falcon_job.params import Params
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.records.dataset import check_disjoint, read_passages
from falcon_job.records.passage import Passage
from falcon_job.records.splits import split_validation, take_passages
from falcon_job.sources.base_model import locate
from falcon_job.tokens.dataset import Split, write_split
from falcon_job.tokens.encoder import PromptEncoder
from falcon_job.tokens.examples import ExampleEncoder, Tally
from falcon_job.tokens.tokenizer import make_encoder
from falcon_job.workspace import Workspace

logger = logging.getLogger(__name__)

Counts = dict[str, int | float]
MERGES_TRIED = 200


def preprocess(params: Params, machine: Machine, workspace: Workspace) -> None:
    """Write the tokenized splits and the report on them.

    Raises:
        InputError: bad records, all of a file at once, or a tokenizer that cannot serve.
    """
    encoder = make_encoder(locate(workspace), TEMPLATES[params.prompt.template])
    settings = params.preprocess
    examples = ExampleEncoder(encoder, settings.max_tokens, settings.seed)

    read_train, dev = (read_passages(_raw_file(workspace, split)) for split in ("train", "dev"))
    _check_same_kind(read_train, dev)
    overlaps = check_disjoint(read_train, dev)
    for overlap in overlaps:
        logger.warning("train and dev overlap: %s", overlap)
    chosen = take_passages(read_train, settings.limit, settings.seed)
    train, validation = split_validation(chosen, settings.validation_fraction, settings.seed)
    _warn_of_merges(encoder, train)

    tallies = {name: Tally() for name in ("train", "validation", "dev")}
    with new_folder(workspace.dataset) as folder:
        for name, passages in (("train", train), ("validation", validation)):
            write_split(folder / f"{name}.arrow", examples.training(passages, tallies[name]))
        trained = Split(folder / "train.arrow")
        if not len(trained):
            dropped = ", ".join(f"{count} {reason}" for reason, count in tallies["train"].dropped.items() if count)
            raise InputError(
                f"dataset.train: none of its questions can be trained on ({dropped}): raise preprocess.max_tokens"
            )
        longest = _longest_answer(trained)
        write_split(folder / "dev.arrow", examples.scoring(dev, longest, tallies["dev"]))
        write_json(
            folder / "settings.json",
            {
                "max_tokens": settings.max_tokens,
                "answer_tokens": longest,
                "closed_book": train[0].text is None,
            },
        )
        report = {
            name: _describe(passages, Split(folder / f"{name}.arrow"), tallies[name])
            for name, passages in (("train", train), ("validation", validation), ("dev", dev))
        }
    left_out = sum(len(p.questions) for p in read_train) - sum(len(p.questions) for p in chosen)
    write_json(workspace.reports / "data.json", {**report, "left_out_by_limit": left_out, "overlaps": len(overlaps)})
    logger.info("train %(kept)d questions on %(passages)d passages", report["train"])
    for name, tally in tallies.items():
        for reason, count in tally.dropped.items():
            if count:
                logger.warning("%s: dropped %d questions: %s", name, count, reason)


def _raw_file(workspace: Workspace, split: str) -> Path:
    found = sorted(workspace.raw.glob(f"{split}.*"))
    if not found:
        raise InputError(f"{workspace.raw} holds no {split} file: run `falcon-job run fetch`")
    return found[0]


def _check_same_kind(train: Sequence[Passage], dev: Sequence[Passage]) -> None:
    with_passages = [split[0].text is not None for split in (train, dev)]
    if with_passages[0] != with_passages[1]:
        has, lacks = ("train", "dev") if with_passages[0] else ("dev", "train")
        raise InputError(
            f"dataset.{has} asks about passages, dataset.{lacks} is closed book: name two files of the same kind"
        )


def _warn_of_merges(encoder: PromptEncoder, passages: Sequence[Passage]) -> None:
    """Say so where pieces of a prompt tokenized apart are not what the base model saw of such text."""
    tried = [(passage, passage.questions[0]) for passage in islice(passages, MERGES_TRIED)]
    merged = sum(
        not encoder.adds_up(passage.text, question.text, question.answers[0].text if question.answers else None)
        for passage, question in tried
    )
    if merged:
        logger.warning(
            "model.source: its tokenizer merges across the pieces of a prompt (%d of %d tried): the passage ends, or "
            "the answer begins, with tokens that it would not use in running text; training and answers agree on them",
            merged,
            len(tried),
        )


def _longest_answer(train: Split) -> int:
    """Return the tokens kept free for an answer that is not known yet: the longest one trained on."""
    return max(len(question.answer_ids) for row in train for question in row.questions)


def _describe(passages: Sequence[Passage], split: Split, tally: Tally) -> dict[str, int | Counts]:
    """Return counts of records, and tokens in sequences and in trees."""
    lengths = array("i")
    packed = kept = unanswerable = 0
    for _, windows in groupby(split, key=lambda row: row.passage):
        answerable: dict[str, bool] = {}
        for row in windows:
            tokens = [len(question.prompt_ids) + len(question.answer_ids) for question in row.questions]
            lengths.extend(len(row.prefix_ids) + count for count in tokens)
            packed += len(row.prefix_ids) + sum(tokens)
            answerable |= {question.id: bool(question.answers) for question in row.questions}
        kept += len(answerable)
        unanswerable += len(answerable) - sum(answerable.values())
    ordered = np.sort(lengths)
    return {
        "articles": len({passage.article for passage in passages}),
        "passages": len(passages),
        "questions": sum(len(passage.questions) for passage in passages),
        "kept": kept,
        "unanswerable": unanswerable,
        "windowed": tally.windowed_passages,
        "windows": len(split),
        "dropped": dict(sorted(tally.dropped.items())),
        "tokens": {
            "median": int(ordered[len(ordered) // 2]) if lengths else 0,
            "longest": int(ordered[-1]) if lengths else 0,
            "separate": sum(lengths),
            "packed": packed,
        },
    }
