"""From prompt pieces to tokens, so that a shared passage is tokenized once and the pieces add up to the whole."""

from collections.abc import Sequence
from typing import Any, Protocol

from falcon_job.errors import InputError
from falcon_job.qa.prompt import PromptTemplate


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    @property
    def bos_token_id(self) -> Any:
        """Return the id of start-of-text, None without one."""

    @property
    def eos_token_id(self) -> Any:
        """Return the id of end-of-text, None without one."""

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Return the token ids of `text`; split, the names of special tokens in it are text like any other."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> Any:
        """Return the text of `token_ids`."""


class PromptEncoder:
    """Tokenizes the pieces of a prompt apart.

    A piece that goes on after another is tokenized behind the last character before it, which is then taken off, so
    that tokenizers which mark the start of a text (SentencePiece) give what they give in the middle of one.
    """

    def __init__(self, tokenizer: Tokenizer, template: PromptTemplate, pad_token_id: int | None) -> None:
        """Check that end-of-text can be learned.

        Raises:
            InputError: the tokenizer has no end-of-text token, or it is the padding token, which is never learned.
        """
        if tokenizer.eos_token_id is None:
            raise InputError("model.source: its tokenizer has no end-of-text token: answers could never end")
        if pad_token_id in (None, tokenizer.eos_token_id):
            raise InputError(
                f"model.source: its tokenizer pads with end-of-text (id {tokenizer.eos_token_id}) and has no other "
                "special token: answers would never learn to end; add a padding token to tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.template = template
        self.pad_token_id = int(pad_token_id)
        self.eos_token_id = int(tokenizer.eos_token_id)
        self._start = _leading_special_tokens(tokenizer)

    def shared(self, context: str | None) -> list[int]:
        """Return the tokens all questions of a passage share; for closed-book questions the start token, if any."""
        return [*self._start, *self._tokens(self.template.shared_text(context))]

    def question(self, question: str, *, closed_book: bool) -> list[int]:
        """Return the tokens of a question, up to where the answer begins."""
        text = self.template.question_text(question, closed_book=closed_book)
        return self._tokens(text) if closed_book else self._tokens_after("\n", text)

    def answer(self, answer: str | None) -> list[int]:
        """Return the tokens to learn: the answer (None: the no-answer phrase) and end-of-text."""
        return [*self._tokens_after(":", self.template.answer_text(answer)), self.eos_token_id]

    def adds_up(self, context: str | None, question: str, answer: str | None) -> bool:
        """Tell whether the pieces of a prompt are the tokens of the whole: not if some merge across a border."""
        closed_book = context is None
        shared = self.template.shared_text(context)
        whole = (
            shared + self.template.question_text(question, closed_book=closed_book) + self.template.answer_text(answer)
        )
        pieces = [*self.shared(context), *self.question(question, closed_book=closed_book), *self.answer(answer)]
        return pieces == [*self._start, *self._tokens(whole), self.eos_token_id]

    def read(self, token_ids: Sequence[int]) -> str:
        """Return the answer in generated tokens, up to end-of-text; "" for the no-answer phrase."""
        ids = list(token_ids)
        if self.eos_token_id in ids:
            ids = ids[: ids.index(self.eos_token_id)]
        return self.template.read_answer(str(self.tokenizer.decode(ids, skip_special_tokens=True)))

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def _tokens_after(self, before: str, text: str) -> list[int]:
        anchor = self._tokens(before)
        together = self._tokens(before + text)
        return together[len(anchor) :] if together[: len(anchor)] == anchor else self._tokens(text)


def _leading_special_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return the start-of-text token if the tokenizer puts one before every text."""
    first = tokenizer.encode("a", add_special_tokens=True, split_special_tokens=True)[:1]
    return first if first == [tokenizer.bos_token_id] else []
