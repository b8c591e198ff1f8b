"""Encode passages: cut long ones into windows, put each question into one window or all, and count those left out."""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from falcon_job.errors import InputError, Problem, ProblemList
from falcon_job.qa.windows import Window, cut_windows
from falcon_job.records.passage import Passage, Question
from falcon_job.tokens.dataset import EncodedPassage, EncodedQuestion
from falcon_job.tokens.encoder import PromptEncoder
from falcon_job.validation import quoted

TOO_LONG = "question_too_long"
ANSWER_CUT = "answer_in_no_window"
PASSAGES_AT_A_TIME = 512
_Encoded = tuple[Passage, list[int], list[EncodedQuestion]]
"""A passage, its tokens, and its encoded questions."""


@dataclass
class Tally:
    """Counts from encoding a split.

    Attributes:
        windowed_passages: number of passages that were cut into windows.
        dropped: number of questions that were left out, by reason.
    """

    windowed_passages: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ExampleEncoder:
    """Encodes passages so that a passage, a question and its answer together have at most `max_tokens` tokens."""

    encoder: PromptEncoder
    max_tokens: int
    seed: int

    def training(self, passages: Iterable[Passage], tally: Tally) -> Iterator[EncodedPassage]:
        """Yield passages or their windows for training, with each question in one window.

        `seed` draws the window at random: from the windows that contain the answer or, for an unanswerable question,
        from all windows. A question that is too long, or whose answer no window contains, is left out and counted in
        `tally`.
        """
        for number, (passage, shared, examples) in enumerate(self._encode(passages)):
            encoded = list(zip(passage.questions, examples, strict=True))
            room = self._room(shared)
            fitting = [(q, e) for q, e in encoded if len(e.prompt_ids) + len(e.answer_ids) <= room]
            tally.dropped[TOO_LONG] += len(encoded) - len(fitting)
            if not fitting:
                continue
            longest = max(len(e.prompt_ids) + len(e.answer_ids) for _, e in fitting)
            windows = self._windows(passage, shared, longest)
            tally.windowed_passages += len(windows) > 1
            placed: dict[Window, list[EncodedQuestion]] = {window: [] for window in windows}
            for question, example in fitting:
                window = self._draw(question, windows)
                if window is None:
                    tally.dropped[ANSWER_CUT] += 1
                else:
                    placed[window].append(example)
            for window, inside in placed.items():
                if inside:
                    yield self._row(number, passage, shared, window, inside)

    def scoring(self, passages: Collection[Passage], answer_tokens: int, tally: Tally) -> Iterator[EncodedPassage]:
        """Yield passages or their windows for scoring, with all questions in every window and room for the answers.

        Passages are tokenized twice, first to check them and then to yield them, so that they need not be kept in
        memory.

        Args:
            passages: the passages.
            answer_tokens: number of tokens to reserve for each answer.
            tally: counts the passages that are cut into windows.

        Raises:
            InputError: questions are too long; one message lists all. No question is left out, because official scores
                count every question.
        """
        self._check_askable(self._encode(passages), answer_tokens)
        for number, (passage, shared, examples) in enumerate(self._encode(passages)):
            longest = max(len(example.prompt_ids) for example in examples) + answer_tokens
            windows = self._windows(passage, shared, longest)
            tally.windowed_passages += len(windows) > 1
            for window in windows:
                yield self._row(number, passage, shared, window, examples)

    def _check_askable(self, encoded: Iterable[_Encoded], answer_tokens: int) -> None:
        problems = ProblemList()
        needed = 0
        for passage, shared, examples in encoded:
            room = self._room(shared)
            for example in examples:
                tokens = len(example.prompt_ids) + answer_tokens
                if tokens > room:
                    needed = max(needed, min(2 * tokens, len(shared) + tokens))
                    place = f"{_article(passage)}, question {quoted(example.id)}"
                    problems.add(Problem(f"takes {tokens} tokens, but only {room} are left for it", place))
        if problems:
            are = "question is" if len(problems) == 1 else "questions are"
            raise InputError(
                f"{len(problems)} {are} too long, with {answer_tokens} tokens reserved for the answer",
                fix=f"shorten them, or set preprocess.max_tokens (now {self.max_tokens}) to at least {needed}",
                problems=problems,
            )

    def _room(self, shared: list[int]) -> int:
        """Return the maximum length of a question with its answer, in tokens.

        With a short passage, it is the rest of `max_tokens`. A long passage can be cut into windows, which leaves half
        of `max_tokens`.
        """
        return max(self.max_tokens // 2, self.max_tokens - len(shared))

    def _encode(self, passages: Iterable[Passage]) -> Iterator[_Encoded]:
        """Yield passages with their tokens and their encoded questions, tokenizing them in batches."""
        remaining = iter(passages)
        while batch := list(islice(remaining, PASSAGES_AT_A_TIME)):
            questions = [question for passage in batch for question in passage.questions]
            firsts = [question.answers[0].text if question.answers else None for question in questions]
            asked = self.encoder.questions([q.text for q in questions], closed_book=batch[0].text is None)
            learned = self.encoder.answers(firsts)
            examples = map(_example, questions, asked, learned)
            for passage, shared in zip(batch, self.encoder.shared([p.text for p in batch]), strict=True):
                yield passage, shared, list(islice(examples, len(passage.questions)))

    def _windows(self, passage: Passage, shared: list[int], question_tokens: int) -> list[Window]:
        if passage.text is None:
            return [Window(0, 0)]
        room = self.max_tokens - question_tokens
        if len(shared) <= room:
            return [Window(0, len(passage.text))]
        try:
            return cut_windows(passage.text, room, lambda text: len(self.encoder.shared([text])[0]))
        except ValueError as error:
            raise InputError(f"{error} ({_article(passage)})", fix="raise preprocess.max_tokens") from None

    def _draw(self, question: Question, windows: list[Window]) -> Window | None:
        """Return a random window for a question to be trained on; None if no window contains its answer."""
        candidates = windows
        if question.answers and len(windows) > 1:
            answer = question.answers[0]
            start = answer.start or 0
            candidates = [window for window in windows if window.holds(start, start + len(answer.text))]
        if not candidates:
            return None
        return random.Random(f"{self.seed} {question.id}").choice(candidates)

    def _row(
        self, number: int, passage: Passage, shared: list[int], window: Window, examples: list[EncodedQuestion]
    ) -> EncodedPassage:
        context = None if passage.text is None else passage.text[window.start : window.stop]
        prefix = shared if context == passage.text else self.encoder.shared([context])[0]
        return EncodedPassage(number, passage.article, context, prefix, examples)


def count_merging(encoder: PromptEncoder, passages: Iterable[Passage]) -> int:
    """Return the number of passages whose first prompt has other tokens as a whole than in pieces.

    This happens if the tokenizer merges characters across pieces. The base model has then not seen such sequences of
    tokens in running text.
    """
    firsts = ((passage.text, passage.questions[0]) for passage in passages)
    return sum(
        not encoder.adds_up(text, question.text, question.answers[0].text if question.answers else None)
        for text, question in firsts
    )


def _article(passage: Passage) -> str:
    return f"article {quoted(passage.article)}" if passage.article else "a passage without a title"


def _example(question: Question, prompt_ids: list[int], answer_ids: list[int]) -> EncodedQuestion:
    answers = [answer.text for answer in question.answers]
    return EncodedQuestion(question.id, question.text, answers, prompt_ids, answer_ids)
