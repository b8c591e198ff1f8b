"""Does what is on disk answer as what was trained? Compared on the tokens of real questions before it is handed out."""

import gc
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from falcon_job.errors import InputError, JobError
from falcon_job.files import new_folder, read_json
from falcon_job.inference.bundle import PROMPT_FILE
from falcon_job.inference.generation import Model
from falcon_job.model.adapter import load_adapter
from falcon_job.model.loading import load_base
from falcon_job.model.precision import PRECISIONS
from falcon_job.params import Precision
from falcon_job.qa.prompt import PromptTemplate
from falcon_job.tokens.dataset import EncodedPassage, Split
from falcon_job.tokens.tokenizer import load_tokenizer, make_encoder
from falcon_job.workspace import Workspace


def sample_trees(workspace: Workspace, questions: int) -> list[EncodedPassage]:
    """Return the first passages of validation (without one: of train) up to about `questions` questions."""
    split = Split(workspace.dataset / "validation.arrow")
    split = split if len(split) else Split(workspace.dataset / "train.arrow")
    rows: list[EncodedPassage] = []
    while len(rows) < len(split) and sum(len(row.questions) for row in rows) < questions:
        rows.append(split[len(rows)])
    return rows


def check_package(folder: Path, adapter: Path, base: PreTrainedModel, rows: Sequence[EncodedPassage]) -> float:
    """Return the largest logit difference between exported and trained adapter, on the same base.

    Raises:
        JobError: they differ, or the exported tokenizer and prompt give other tokens than those trained on.
    """
    _check_tokens(folder, rows)
    trained = _without_adapter(base, adapter, rows)
    try:
        exported = _without_adapter(base, folder, rows)
    except InputError as error:
        raise JobError(f"export: the copied adapter cannot be loaded: {error}") from error
    difference = float(torch.stack([(a - b).abs().max() for a, b in zip(trained, exported, strict=True)]).max())
    if not difference <= 0:  # nan is a difference
        raise JobError(f"export: the reloaded adapter's logits differ by {difference:.1e} from the trained one's")
    return difference


def _without_adapter(base: PreTrainedModel, adapter: Path, rows: Sequence[EncodedPassage]) -> list[Tensor]:
    """Return answer logits with an adapter, and take it off the base again."""
    model = load_adapter(base, adapter)
    try:
        return answer_logits(model, rows)
    finally:
        model.unload()


def answer_logits(model: Model, rows: Sequence[EncodedPassage]) -> list[Tensor]:
    """Return the logits that predict each question's answer: float32 [answer tokens, vocabulary], on the CPU."""
    device = next(model.parameters()).device
    logits = []
    with torch.inference_mode():
        for row in rows:
            for question in row.questions:
                tokens = torch.tensor([[*row.prefix_ids, *question.prompt_ids, *question.answer_ids]], device=device)
                output = model(input_ids=tokens, logits_to_keep=len(question.answer_ids) + 1, use_cache=False)
                logits.append(output.logits[0, :-1].float().cpu())
    return logits


def _check_tokens(folder: Path, rows: Sequence[EncodedPassage]) -> None:
    encoder = make_encoder(folder, PromptTemplate(**read_json(folder / PROMPT_FILE)))
    for row in rows:
        (prefix,) = encoder.shared([row.context])
        asked = encoder.questions([q.question for q in row.questions], closed_book=row.context is None)
        for question, prompt_ids in zip(row.questions, asked, strict=True):
            if (prefix, prompt_ids) != (row.prefix_ids, question.prompt_ids):
                raise JobError(f"export: the saved tokenizer and prompt give other tokens for question {question.id}")


def merge(
    base_folder: Path,
    adapter: Path,
    target: Path,
    precision: Precision,
    rows: Sequence[EncodedPassage],
    device: torch.device,
) -> float:
    """Write base and adapter as one model, reload it; return its drift: mean |difference| of answers' log probability.

    Raises:
        JobError: the merged model answers otherwise; nothing is left behind.
    """
    wide: Precision = "bf16" if PRECISIONS[precision].quantized else precision
    before = _answer_log_probabilities(load_adapter(load_base(base_folder, precision, device), adapter), rows)
    merged = load_adapter(load_base(base_folder, wide, device), adapter).merge_and_unload()
    tokenizer = load_tokenizer(base_folder)
    # a plain generate() then answers as was measured, whatever the base was published with
    merged.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    with new_folder(target) as folder:
        merged.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes 0600
        del merged
        gc.collect()
        after = _answer_log_probabilities(load_base(folder, wide, device), rows)
        drift = float((after - before).abs().mean())
        accepted = PRECISIONS[precision].merge_drift
        if not drift <= accepted:
            raise JobError(
                f"export.merge: the merged model's answers drift by {drift:.1e} (mean log probability), more than "
                f"rounding ({accepted:.0e}): set export.merge to false and use the adapter"
            )
    return drift


def _answer_log_probabilities(model: Model, rows: Sequence[EncodedPassage]) -> Tensor:
    answers = [question.answer_ids for row in rows for question in row.questions]
    per_question = [
        logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
        for logits, answer in zip(answer_logits(model, rows), answers, strict=True)
    ]
    return torch.cat(per_question)
