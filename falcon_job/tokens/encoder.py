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

    def __call__(
        self, texts: list[str], *, add_special_tokens: bool, split_special_tokens: bool, return_attention_mask: bool
    ) -> Any:
        """Return the token ids of texts, as `input_ids`; split, names of special tokens are text like any other."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> Any:
        """Return the text of `token_ids`."""


class PromptEncoder:
    """Tokenizes the pieces of prompts apart, many of a kind at a time.

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

    def shared(self, contexts: Sequence[str | None]) -> list[list[int]]:
        """Return of each passage the tokens its questions share; of None, closed book, the start token, if any."""
        return [[*self._start, *ids] for ids in self._tokens([self.template.shared_text(text) for text in contexts])]

    def questions(self, questions: Sequence[str], *, closed_book: bool) -> list[list[int]]:
        """Return of each question the tokens up to where the answer begins."""
        texts = [self.template.question_text(question, closed_book=closed_book) for question in questions]
        return self._tokens(texts) if closed_book else self._tokens_after("\n", texts)

    def answers(self, answers: Sequence[str | None]) -> list[list[int]]:
        """Return of each answer the tokens to learn: its own (of None: the no-answer phrase's) and end-of-text."""
        texts = [self.template.answer_text(answer) for answer in answers]
        return [[*ids, self.eos_token_id] for ids in self._tokens_after(":", texts)]

    def adds_up(self, context: str | None, question: str, answer: str | None) -> bool:
        """Tell whether the pieces of a prompt are the tokens of the whole: not if some merge across a border."""
        closed_book = context is None
        shared = self.template.shared_text(context)
        whole = (
            shared + self.template.question_text(question, closed_book=closed_book) + self.template.answer_text(answer)
        )
        (asked,) = self.questions([question], closed_book=closed_book)
        pieces = [*self.shared([context])[0], *asked, *self.answers([answer])[0]]
        return pieces == [*self._start, *self._tokens([whole])[0], self.eos_token_id]

    def read(self, token_ids: Sequence[int]) -> str:
        """Return the answer in generated tokens, up to end-of-text; "" for the no-answer phrase."""
        ids = list(token_ids)
        if self.eos_token_id in ids:
            ids = ids[: ids.index(self.eos_token_id)]
        return self.template.read_answer(str(self.tokenizer.decode(ids, skip_special_tokens=True)))

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        return _tokenize(self.tokenizer, texts, start=False)

    def _tokens_after(self, before: str, texts: list[str]) -> list[list[int]]:
        anchor, *together = self._tokens([before, *(before + text for text in texts)])
        length = len(anchor)
        return [
            ids[length:] if ids[:length] == anchor else self._tokens([text])[0]
            for ids, text in zip(together, texts, strict=True)
        ]


def _leading_special_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return the start-of-text token if the tokenizer puts one before every text."""
    (ids,) = _tokenize(tokenizer, ["a"], start=True)
    return ids[:1] if ids[:1] == [tokenizer.bos_token_id] else []


def _tokenize(tokenizer: Tokenizer, texts: list[str], *, start: bool) -> list[list[int]]:
    """Return the tokens of each text; many texts keep all cores busy."""
    options = {"split_special_tokens": True, "return_attention_mask": False}
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=start, **options)["input_ids"]
    return ids
