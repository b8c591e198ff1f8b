"""Greedy decoding of many prompts as one batch, from the keys and values of a packed prefill."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from falcon_job.inference.prefill import Prefill, prompt_cache

FINISHED_SHARE = 0.2
"""Finished rows are dropped from the batch once they make up this share, since dropping copies the keys and values."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded answer.

    Attributes:
        token_ids: up to and including end-of-text; without it if the answer reached its maximum length.
        log_probability: sum of the model's log-probabilities of these tokens, before any token is forbidden.
    """

    token_ids: list[int]
    log_probability: float


def decode(
    model: Any, prefills: Sequence[Prefill], *, max_new_tokens: int, end: int, forbidden_starts: Sequence[int]
) -> list[Decoded]:
    """Decode greedily from all prompts of some prefills at once. Return one answer for each branch, in order.

    Args:
        model: a causal language model of transformers, bare or with an adapter.
        prefills: the prompts to continue.
        max_new_tokens: maximum length of an answer, including end-of-text.
        end: id of the end-of-text token.
        forbidden_starts: ids of tokens that no answer may begin with.
    """
    batch = _Batch(model, prefills, end)
    batch.take(torch.cat([prefill.first_logits for prefill in prefills]), forbidden_starts)
    for _ in range(max_new_tokens - 1):
        if not batch.drop_finished():
            break
        batch.take(batch.next_logits())
    return batch.results()


class _Batch:
    """The rows that are still being decoded, and the tokens of all rows so far."""

    def __init__(self, model: Any, prefills: Sequence[Prefill], end: int) -> None:
        self._model, self._end = model, end
        self._device = prefills[0].first_logits.device
        self._cache, lengths = prompt_cache(prefills)
        self._positions = lengths.to(self._device)
        self._width = int(lengths.max())
        self._starts = self._width - self._positions  # the first slot of each row that is not padding
        self._rows = torch.arange(len(lengths), device=self._device)
        self._running = torch.ones(len(lengths), dtype=torch.bool, device=self._device)
        self._tokens: list[list[int]] = [[] for _ in lengths]
        self._scores = torch.zeros(len(lengths), dtype=torch.float64, device=self._device)
        self._last = self._rows

    def take(self, logits: Tensor, forbidden: Sequence[int] = ()) -> None:
        """Append the most likely token to each row; `logits` are [rows, vocabulary]."""
        log_probabilities = logits.float().log_softmax(-1)
        choices = log_probabilities
        if forbidden:
            choices = log_probabilities.index_fill(-1, torch.tensor(forbidden, device=self._device), -torch.inf)
        self._last = choices.argmax(-1)
        gained = log_probabilities.gather(-1, self._last[:, None])[:, 0].double()
        self._scores[self._rows] += torch.where(self._running, gained, 0.0)
        # one copy to the CPU, since each one waits for the GPU
        for row, token, running in torch.stack([self._rows, self._last, self._running], dim=1).tolist():
            if running:
                self._tokens[row].append(token)
        self._running = self._running & (self._last != self._end)

    def drop_finished(self) -> bool:
        """Drop finished rows if there are enough of them. Return whether any row is unfinished."""
        running = int(self._running.sum())
        if running and running <= (1 - FINISHED_SHARE) * len(self._rows):
            kept = self._running.nonzero()[:, 0]
            self._cache.batch_select_indices(kept)
            self._rows, self._last, self._running = self._rows[kept], self._last[kept], self._running[kept]
            self._positions, self._starts = self._positions[kept], self._starts[kept]
        return running > 0

    def next_logits(self) -> Tensor:
        """Return the logits of the next token of each row, [rows, vocabulary]."""
        self._width += 1
        slots = torch.arange(self._width, device=self._device)
        mask = (slots >= self._starts[:, None])[:, None, None]
        output = self._model(
            input_ids=self._last[:, None],
            position_ids=self._positions[:, None],
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._positions = self._positions + 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def results(self) -> list[Decoded]:
        """Return the answer of each row, in the order of the prefills."""
        return [Decoded(*pair) for pair in zip(self._tokens, self._scores.tolist(), strict=True)]
