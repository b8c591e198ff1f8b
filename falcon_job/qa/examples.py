"""From validated passages to encoded ones: windows, the window of each question, and a count of what was left out."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from falcon_job.errors import InputError
from falcon_job.qa.encode import PromptEncoder
from falcon_job.qa.passage import Passage, Question
from falcon_job.qa.store import EncodedPassage, EncodedQuestion
from falcon_job.qa.windows import Window, cut_windows

TOO_LONG = "question_too_long"
ANSWER_CUT = "answer_in_no_window"
_SHOWN_PROBLEMS = 50


@dataclass
class Tally:
    """What became of the records of a split: counts, and lengths in tokens."""

    windowed_passages: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ExampleEncoder:
    """Encodes passages so that passage, question and answer together stay within `max_tokens`."""

    encoder: PromptEncoder
    max_tokens: int
    seed: int

    def training(self, passages: Iterable[Passage], tally: Tally) -> Iterator[EncodedPassage]:
        """Yield passages, or their windows, with each question in one window and its answer to learn.

        The window is drawn by the seed: from those that hold the answer, from all if there is none. A question that
        fits nowhere is left out and counted in `tally`.
        """
        for number, passage in enumerate(passages):
            encoded = [(question, self._encode(question, passage)) for question in passage.questions]
            room = self._room(passage)
            fitting = [(q, e) for q, e in encoded if len(e.prompt_ids) + len(e.answer_ids) <= room]
            tally.dropped[TOO_LONG] += len(encoded) - len(fitting)
            if not fitting:
                continue
            longest = max(len(e.prompt_ids) + len(e.answer_ids) for _, e in fitting)
            windows = self._windows(passage, longest)
            tally.windowed_passages += len(windows) > 1
            placed: dict[Window, list[EncodedQuestion]] = {window: [] for window in windows}
            for question, example in fitting:
                window = self._draw(question, windows)
                if window is None:
                    tally.dropped[ANSWER_CUT] += 1
                else:
                    placed[window].append(example)
            for window, examples in placed.items():
                if examples:
                    yield self._row(number, passage, window, examples)

    def scoring(self, passages: Iterable[Passage], answer_tokens: int, tally: Tally) -> Iterator[EncodedPassage]:
        """Yield passages with all their questions in every window, `answer_tokens` kept free for the answer.

        Raises:
            InputError: questions are too long to be asked, one message for all of them; official scores count every
                question, so none is left out.
        """
        encoded = [
            (passage, [self._encode(question, passage) for question in passage.questions]) for passage in passages
        ]
        self._check_askable(encoded, answer_tokens)
        for number, (passage, examples) in enumerate(encoded):
            longest = max(len(example.prompt_ids) for example in examples) + answer_tokens
            windows = self._windows(passage, longest)
            tally.windowed_passages += len(windows) > 1
            for window in windows:
                yield self._row(number, passage, window, examples)

    def _check_askable(self, encoded: Iterable[tuple[Passage, list[EncodedQuestion]]], answer_tokens: int) -> None:
        problems: list[str] = []
        needed = 0
        for passage, examples in encoded:
            shared, room = len(self.encoder.shared(passage.text)), self._room(passage)
            for example in examples:
                tokens = len(example.prompt_ids) + answer_tokens
                if tokens > room:
                    needed = max(needed, min(2 * tokens, shared + tokens))
                    article = f"article {passage.article!r}, " if passage.article else ""
                    problems.append(f"{article}question {example.id!r}: {tokens} tokens, where {room} are left")
        if problems:
            shown = [f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
            if len(problems) > _SHOWN_PROBLEMS:
                shown.append(f"  ... and {len(problems) - _SHOWN_PROBLEMS} more")
            head = (
                f"{len(problems)} question{'s' * (len(problems) > 1)} too long to be asked (with {answer_tokens} "
                f"tokens for the answer): shorten, or set preprocess.max_tokens (now {self.max_tokens}) to {needed}"
            )
            raise InputError("\n".join([head, *shown]))

    def _room(self, passage: Passage) -> int:
        """Return the most tokens of a question with its answer: what a short passage leaves, of a long one half."""
        return max(self.max_tokens // 2, self.max_tokens - len(self.encoder.shared(passage.text)))

    def _encode(self, question: Question, passage: Passage) -> EncodedQuestion:
        answers = [answer.text for answer in question.answers]
        return EncodedQuestion(
            id=question.id,
            question=question.text,
            answers=answers,
            prompt_ids=self.encoder.question(question.text, closed_book=passage.text is None),
            answer_ids=self.encoder.answer(answers[0] if answers else None),
        )

    def _windows(self, passage: Passage, question_tokens: int) -> list[Window]:
        if passage.text is None:
            return [Window(0, 0)]
        try:
            return cut_windows(
                passage.text, self.max_tokens - question_tokens, lambda text: len(self.encoder.shared(text))
            )
        except ValueError as error:
            raise InputError(f"article {passage.article!r}: {error}: raise preprocess.max_tokens") from None

    def _draw(self, question: Question, windows: list[Window]) -> Window | None:
        candidates = windows
        if question.answers and len(windows) > 1:
            answer = question.answers[0]
            start = answer.start or 0
            candidates = [window for window in windows if window.holds(start, start + len(answer.text))]
        if not candidates:
            return None
        return random.Random(f"{self.seed} {question.id}").choice(candidates)

    def _row(self, number: int, passage: Passage, window: Window, examples: list[EncodedQuestion]) -> EncodedPassage:
        context = None if passage.text is None else passage.text[window.start : window.stop]
        return EncodedPassage(number, passage.article, context, self.encoder.shared(context), examples)
