"""Answer the questions of dev, score the replies and write the official files, for the stages baseline and evaluate."""

import time
from collections.abc import Sequence
from pathlib import Path

from falcon_job.files import write_json
from falcon_job.inference.evaluation import Numbers, ScoredReply, evaluation_report, score_replies
from falcon_job.inference.generation import Generator, Model
from falcon_job.inference.replies import reply_to
from falcon_job.machine import Machine
from falcon_job.params import Params
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.records.splits import spread
from falcon_job.tokens.dataset import Split
from falcon_job.tokens.encoder import PromptEncoder
from falcon_job.tokens.tokenizer import make_encoder
from falcon_job.workspace import Workspace

AUTO_TOKENS_PER_BATCH = 8192


def score_dev(
    model: Model, tokenizer_folder: Path, params: Params, machine: Machine, workspace: Workspace
) -> tuple[list[ScoredReply], Numbers]:
    """Answer the questions of dev; return the scored replies and the content of eval.json."""
    started = time.perf_counter()
    split = Split(workspace.dataset / "dev.arrow")
    rows = _rows_to_ask(split, params.evaluate.limit)
    encoder = make_encoder(tokenizer_folder, TEMPLATES[params.prompt.template])
    generator = make_generator(model, encoder, params, machine)
    scored = score_replies(reply_to((split[i] for i in rows), generator, extractive=params.evaluate.extractive))
    numbers = evaluation_report(scored)
    seconds = time.perf_counter() - started
    numbers["run"] = {"seconds": round(seconds, 2), "questions_per_second": round(len(scored) / seconds, 2)}
    return scored, numbers


def _rows_to_ask(split: Split, limit: int | None) -> list[int]:
    """Return the rows of all windows of the passages that `limit` keeps."""
    question_counts = dict(zip(split.passages.tolist(), split.branch_counts.tolist(), strict=True))
    passages = list(question_counts)
    kept = {passages[i] for i in spread(list(question_counts.values()), limit)}
    return [row for row, passage in enumerate(split.passages.tolist()) if passage in kept]


def make_generator(model: Model, encoder: PromptEncoder, params: Params, machine: Machine) -> Generator:
    """Return a generator with the answer length from `params` and the batch size for this machine."""
    wanted = machine.tokens_per_pack
    tokens_per_batch = AUTO_TOKENS_PER_BATCH if wanted == "auto" else wanted
    return Generator(model, encoder, params.evaluate.max_new_tokens, tokens_per_batch)


def write_official_files(scored: Sequence[ScoredReply], folder: Path) -> None:
    """Write predictions.json, forced.json and na_prob.json in the official evaluator's formats."""
    replies = [row.reply for row in scored]
    write_json(folder / "predictions.json", {reply.question.id: reply.answer for reply in replies})
    write_json(folder / "forced.json", {reply.question.id: reply.forced for reply in replies})
    write_json(folder / "na_prob.json", {reply.question.id: reply.no_answer_probability for reply in replies})
