"""Generate greedy answers and compute no-answer probabilities, for batches of prompts."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from transformers import GenerationConfig

from falcon_job.errors import JobError
from falcon_job.tokens.encoder import PromptEncoder

T = TypeVar("T")
Model = torch.nn.Module
"""A causal language model of transformers, bare or with a PEFT adapter."""


class Generator:
    """Answers prompts with one model, in left-padded batches of prompts of similar length."""

    def __init__(self, model: Model, encoder: PromptEncoder, max_new_tokens: int, tokens_per_batch: int) -> None:
        """Set the model to evaluation mode and clear its `generation_config`.

        Args:
            model: the language model.
            encoder: tokenizes the no-answer phrase and decodes generated tokens.
            max_new_tokens: maximum length of an answer in tokens, including end-of-text.
            tokens_per_batch: maximum number of tokens in a batch, including padding and new tokens. A longer prompt
                gets its own batch.
        """
        self._model = cast("Any", model.eval())  # torch types any attribute as Tensor | Module
        # generate() takes settings that we do not pass (sampling, penalties, stop lists) from this config, so clear it
        self._model.generation_config = GenerationConfig()
        self._encoder = encoder
        self._max_new_tokens = max_new_tokens
        self._tokens_per_batch = tokens_per_batch
        self._device = next(model.parameters()).device

    def answers(self, prompts: Sequence[Sequence[int]], *, forced: bool = False) -> list[str]:
        """Return the greedy answer to each prompt; "" stands for the no-answer phrase.

        A forced answer may not begin with the first token of the phrase or with end-of-text. A model may still spell
        the phrase in another way ("Unanswerable", or letter by letter). Such answers are generated again, and may then
        not begin with any token that could begin the phrase.

        Args:
            prompts: token ids up to where the answer begins.
            forced: suppress the phrase and empty answers, so that the model has to answer each question.
        """
        if not forced:
            return self._greedy(prompts, None)
        answers = self._greedy(prompts, [self._encoder.answers([None])[0][0], self._encoder.eos_token_id])
        abstained = [i for i, answer in enumerate(answers) if not answer]
        if abstained:
            again = self._greedy([prompts[i] for i in abstained], self._abstention_starts)
            for i, answer in zip(abstained, again, strict=True):
                answers[i] = answer
        return answers

    @cached_property
    def _abstention_starts(self) -> list[int]:
        """All tokens that could begin an empty answer or any spelling of the no-answer phrase."""
        template = self._encoder.template
        starts = []
        for token in range(self._model.get_input_embeddings().weight.shape[0]):
            text = str(self._encoder.tokenizer.decode([token], skip_special_tokens=True))
            if template.no_answer.startswith(text.strip().casefold()) or not template.read_answer(text):
                starts.append(token)
        return starts

    def _greedy(self, prompts: Sequence[Sequence[int]], forbidden_starts: list[int] | None) -> list[str]:
        settings = GenerationConfig(
            max_new_tokens=self._max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=self._encoder.eos_token_id,
            pad_token_id=self._encoder.pad_token_id,
            begin_suppress_tokens=forbidden_starts,
        )

        def generate(batch: Sequence[Sequence[int]]) -> list[str]:
            inputs = self._pad(batch)
            output = self._model.generate(**inputs, generation_config=settings)
            return [self._encoder.read(row) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]

        return self._in_batches(prompts, self._max_new_tokens, generate)

    def no_answer_probabilities(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """Return P(no-answer phrase, end-of-text | prompt) for each prompt, 0 to 1.

        Raises:
            JobError: the model's logits are not finite.
        """
        phrase = self._encoder.answers([None])[0]
        return self._in_batches(prompts, len(phrase), lambda batch: self._probabilities(batch, phrase))

    def _probabilities(self, prompts: Sequence[Sequence[int]], continuation: list[int]) -> list[float]:
        """Return P(continuation | prompt) for each prompt of one batch."""
        inputs = self._pad([[*prompt, *continuation] for prompt in prompts])
        positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        kept = len(continuation) + 1  # the last logits predict what follows the continuation
        logits = self._model(**inputs, position_ids=positions, logits_to_keep=kept, use_cache=False).logits
        log_probabilities = logits[:, :-1].float().log_softmax(-1)
        tokens = torch.tensor(continuation, device=self._device).expand(len(prompts), -1)
        probabilities = log_probabilities.gather(-1, tokens[..., None]).sum((1, 2)).exp()
        if not probabilities.isfinite().all():
            raise JobError("The model's logits are not finite (nan)", fix="set model.precision to bf16 or fp32")
        return [float(p) for p in probabilities]

    @torch.inference_mode()
    def _in_batches(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, work: Callable[[Sequence[Sequence[int]]], list[T]]
    ) -> list[T]:
        """Call `work` on batches of prompts, and return its results in the order of the prompts.

        `work` may add at most `new_tokens` tokens to each prompt.
        """
        results: dict[int, T] = {}
        for indices in _batches([len(prompt) + new_tokens for prompt in prompts], self._tokens_per_batch):
            results.update(zip(indices, work([prompts[i] for i in indices]), strict=True))
        return [results[i] for i in range(len(prompts))]

    def _pad(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, int64 [rows, longest row], padded on the left."""
        width = max(map(len, rows))
        pad = self._encoder.pad_token_id
        return {
            "input_ids": torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=self._device),
            "attention_mask": torch.tensor(
                [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self._device
            ),
        }


def _batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Yield the indices of the rows in each batch, longest rows first.

    A batch with padding (number of rows times the longest row) has at most `tokens_per_batch` tokens, unless it is a
    single row.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
