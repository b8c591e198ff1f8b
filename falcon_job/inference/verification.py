"""Check on real questions that an export or a merged model predicts the same answers as the trained adapter."""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from falcon_job.errors import InputError, JobError
from falcon_job.files import new_folder
from falcon_job.inference.bundle import read_prompt
from falcon_job.inference.generation import Model
from falcon_job.model.adapter import load_adapter
from falcon_job.model.loading import load_base
from falcon_job.model.precision import PRECISIONS
from falcon_job.packing import Pack, Packer, pack_logits, token_log_probabilities
from falcon_job.params import Precision
from falcon_job.tokens.dataset import EncodedPassage, Split
from falcon_job.tokens.tokenizer import load_tokenizer, make_encoder
from falcon_job.workspace import Workspace

_EXPORT_AGAIN = "run `falcon-job run export` again, and check the disk if the error comes back"


def sample_passages(workspace: Workspace, questions: int) -> list[EncodedPassage]:
    """Return the first passages of validation (train if that is empty) with at least `questions` questions in all."""
    split = Split(workspace.dataset / "validation.arrow")
    split = split if len(split) else Split(workspace.dataset / "train.arrow")
    passages: list[EncodedPassage] = []
    while len(passages) < len(split) and sum(len(passage.questions) for passage in passages) < questions:
        passages.append(split[len(passages)])
    return passages


def verify_bundle(folder: Path, adapter: Path, base: PreTrainedModel, passages: Sequence[EncodedPassage]) -> float:
    """Check that the files in `folder` give the same tokens and logits as in training.

    Args:
        folder: the exported bundle.
        adapter: the folder of the trained adapter.
        base: the base model of both. It must not have an adapter, and has none afterwards.
        passages: the tokens and logits of their questions and answers are compared.

    Returns:
        The largest difference between the logits of both adapters. It is 0, or `JobError` is raised.

    Raises:
        JobError: the logits differ, or the exported tokenizer and prompt give other tokens than preprocess did.
    """
    _check_tokens(folder, passages)
    trained = _logits_with_adapter(base, adapter, passages)
    try:
        exported = _logits_with_adapter(base, folder, passages)
    except InputError as error:
        raise JobError(f"The exported adapter cannot be loaded ({error})", fix=_EXPORT_AGAIN) from error
    difference = float((trained - exported).abs().max())
    if not difference <= 0:  # NaN counts as a difference
        raise JobError(
            f"The exported adapter's logits differ from the trained one's by up to {difference:.1e}", fix=_EXPORT_AGAIN
        )
    return difference


def _check_tokens(folder: Path, passages: Sequence[EncodedPassage]) -> None:
    encoder = make_encoder(folder, read_prompt(folder))
    for passage in passages:
        (prefix_ids,) = encoder.shared([passage.context])
        asked = encoder.questions([q.question for q in passage.questions], closed_book=passage.context is None)
        for question, prompt_ids in zip(passage.questions, asked, strict=True):
            if (prefix_ids, prompt_ids) != (passage.prefix_ids, question.prompt_ids):
                raise JobError(
                    f"The exported tokenizer and prompt give other tokens than preprocess for question {question.id!r}",
                    fix="run `falcon-job run`, which reruns the stages that depend on the tokenizer or prompt",
                )


def _logits_with_adapter(base: PreTrainedModel, adapter: Path, passages: Sequence[EncodedPassage]) -> Tensor:
    """Load an adapter into the base, compute `answer_logits`, and unload the adapter."""
    model = load_adapter(base, adapter)
    try:
        return answer_logits(model, passages)
    finally:
        model.unload()


def answer_logits(model: Model, passages: Sequence[EncodedPassage]) -> Tensor:
    """Return the logits that predict the answers of all questions: float32 [answer tokens, vocabulary], on the CPU."""
    with torch.inference_mode():
        return torch.cat([pack_logits(model, pack).float().cpu() for pack in _packs(model, passages)])


def _answer_log_probabilities(model: Model, passages: Sequence[EncodedPassage]) -> Tensor:
    """Return the log probability of each answer token of all questions: float32 [answer tokens], on the CPU."""
    with torch.inference_mode():
        return torch.cat(
            [token_log_probabilities(pack_logits(model, pack), pack).cpu() for pack in _packs(model, passages)]
        )


def _packs(model: Model, passages: Sequence[EncodedPassage]) -> Iterator[Pack]:
    """Yield a pack for each passage, on the device of the model."""
    device = next(model.parameters()).device
    for tree in (passage.tree() for passage in passages):
        yield Packer.dense(len(tree)).make_pack([tree]).to(device)


def write_merged_model(
    base_folder: Path,
    adapter: Path,
    target: Path,
    precision: Precision,
    passages: Sequence[EncodedPassage],
    device: torch.device,
) -> float:
    """Merge the adapter into the base, save the merged model in the folder `target`, and check it by loading it again.

    The merged model has the precision of the run, or bf16 if the run was quantized (fp8, nf4).

    Args:
        base_folder: the base model.
        adapter: the folder of the trained adapter.
        target: the folder to write.
        precision: of the run that trained the adapter.
        passages: the log probabilities of their answers are compared.
        device: where to run the models.

    Returns:
        The drift: the mean absolute change in the log probability of an answer token.

    Raises:
        JobError: the drift is larger than rounding explains. Then `target` is not written.
    """
    unquantized: Precision = "bf16" if PRECISIONS[precision].quantized else precision
    adapted = load_adapter(load_base(base_folder, precision, device), adapter)
    before = _answer_log_probabilities(adapted, passages)
    del adapted
    with new_folder(target) as folder:
        _save_merged(base_folder, adapter, folder, unquantized, device)
        gc.collect()  # keep only one model in memory
        after = _answer_log_probabilities(load_base(folder, unquantized, device), passages)
        drift = float((after - before).abs().mean())
        _check_drift(drift, PRECISIONS[precision].merge_drift)
    return drift


def _save_merged(base_folder: Path, adapter: Path, folder: Path, precision: Precision, device: torch.device) -> None:
    merged = load_adapter(load_base(base_folder, precision, device), adapter).merge_and_unload()
    tokenizer = load_tokenizer(base_folder)
    # A plain generate() then answers as evaluated, without the generation settings that the base was published with.
    merged.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    merged.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes mode 0600


def _check_drift(drift: float, largest: float) -> None:
    if not drift <= largest:  # NaN counts as a drift
        raise JobError(
            f"The merged model answers differently (log probabilities of answers change by {drift:.1e} on average; "
            f"rounding explains at most {largest:.0e})",
            fix="set export.merge to false and use the adapter",
        )
