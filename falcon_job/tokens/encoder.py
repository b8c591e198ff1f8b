"""Tokenize prompts in pieces, so that a shared passage is tokenized once. The pieces add up to the whole prompt."""

from collections.abc import Sequence
from typing import Any, Protocol

from falcon_job.errors import InputError
from falcon_job.qa.prompt import PromptTemplate


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that `PromptEncoder` uses."""

    @property
    def bos_token_id(self) -> Any:
        """Return the id of the start-of-text token; None if there is none."""

    @property
    def eos_token_id(self) -> Any:
        """Return the id of the end-of-text token; None if there is none."""

    def __call__(
        self, texts: list[str], *, add_special_tokens: bool, split_special_tokens: bool, return_attention_mask: bool
    ) -> Any:
        """Return the token ids of texts under `input_ids`; with `split_special_tokens`, "</s>" is ordinary text."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> Any:
        """Return the text of `token_ids`."""


class PromptEncoder:
    """Tokenizes the pieces of prompts (passages, questions, answers) separately, each kind in batches.

    A piece must get the same tokens as within the whole prompt. But tokenizers such as SentencePiece mark the start of
    every text. So a piece is tokenized together with the character before it, and the tokens of this character are then
    removed. For example, the answer " Oru" is tokenized as ": Oru", without the tokens of ":".
    """

    def __init__(self, tokenizer: Tokenizer, template: PromptTemplate, pad_token_id: int | None) -> None:
        """Check that the model can learn to end an answer.

        Raises:
            InputError: the tokenizer has no end-of-text token, or uses it for padding, which is never trained on.
        """
        if tokenizer.eos_token_id is None:
            raise InputError(
                "names a model whose tokenizer has no end-of-text token, so answers would never end",
                place="model.source",
                fix="choose a model whose tokenizer has one",
            )
        if pad_token_id in (None, tokenizer.eos_token_id):
            raise InputError(
                f"names a model whose tokenizer can only pad with end-of-text (id {tokenizer.eos_token_id}), so it "
                "would not learn to end an answer",
                place="model.source",
                fix="add a padding token to tokenizer_config.json",
            )
        self.tokenizer = tokenizer
        self.template = template
        self.pad_token_id = int(pad_token_id)
        self.eos_token_id = int(tokenizer.eos_token_id)
        self._start = _leading_special_tokens(tokenizer)

    def shared(self, contexts: Sequence[str | None]) -> list[list[int]]:
        """Return the tokens that the questions of each passage share; at most start-of-text for None (closed book)."""
        return [[*self._start, *ids] for ids in self._tokens([self.template.shared_text(text) for text in contexts])]

    def questions(self, questions: Sequence[str], *, closed_book: bool) -> list[list[int]]:
        """Return the tokens of each question, up to where its answer begins."""
        texts = [self.template.question_text(question, closed_book=closed_book) for question in questions]
        return self._tokens(texts) if closed_book else self._tokens_after("\n", texts)

    def answers(self, answers: Sequence[str | None]) -> list[list[int]]:
        """Return the tokens of each answer, including end-of-text; None stands for the no-answer phrase."""
        texts = [self.template.answer_text(answer) for answer in answers]
        return [[*ids, self.eos_token_id] for ids in self._tokens_after(":", texts)]

    def adds_up(self, context: str | None, question: str, answer: str | None) -> bool:
        """Return whether the pieces of a prompt give the tokens of the whole; not if tokens merge across a boundary."""
        closed_book = context is None
        shared = self.template.shared_text(context)
        whole = (
            shared + self.template.question_text(question, closed_book=closed_book) + self.template.answer_text(answer)
        )
        (asked,) = self.questions([question], closed_book=closed_book)
        pieces = [*self.shared([context])[0], *asked, *self.answers([answer])[0]]
        return pieces == [*self._start, *self._tokens([whole])[0], self.eos_token_id]

    def read(self, token_ids: Sequence[int]) -> str:
        """Return the text of generated tokens up to end-of-text; "" for the no-answer phrase."""
        ids = list(token_ids)
        if self.eos_token_id in ids:
            ids = ids[: ids.index(self.eos_token_id)]
        return self.template.read_answer(str(self.tokenizer.decode(ids, skip_special_tokens=True)))

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        return _tokenize(self.tokenizer, texts, start=False)

    def _tokens_after(self, before: str, texts: list[str]) -> list[list[int]]:
        """Return the tokens that each text has after the text `before`, without the tokens of `before`."""
        anchor, *together = self._tokens([before, *(before + text for text in texts)])
        length = len(anchor)
        return [
            ids[length:] if ids[:length] == anchor else self._tokens([text])[0]
            for ids, text in zip(together, texts, strict=True)
        ]


def _leading_special_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return a list with the start-of-text token, or an empty list if the tokenizer does not add one to texts."""
    (ids,) = _tokenize(tokenizer, ["a"], start=True)
    return ids[:1] if ids[:1] == [tokenizer.bos_token_id] else []


def _tokenize(tokenizer: Tokenizer, texts: list[str], *, start: bool) -> list[list[int]]:
    """Return the tokens of each text; a call with many texts uses all cores."""
    options = {"split_special_tokens": True, "return_attention_mask": False}
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=start, **options)["input_ids"]
    return ids
