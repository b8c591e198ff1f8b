"""Reply to questions: ask about every window of a passage, and answer from the one most likely to hold the answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from falcon_job.inference.generation import Generator
from falcon_job.qa.span import nearest_span
from falcon_job.tokens.dataset import EncodedPassage, EncodedQuestion


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's reply to a question.

    It comes from the chosen window: the window of the passage for which the model gives the lowest probability to the
    no-answer phrase.

    Attributes:
        question: the question, with its gold answers.
        answer: the answer; "" if the model abstains.
        forced: the answer if the model must not abstain; "" only if extraction finds no word of it in the window.
        no_answer_probability: P(no-answer phrase) in the chosen window, 0 to 1.
        passage: number of the passage in its split.
        context: text of the chosen window; None in closed book.
    """

    question: EncodedQuestion
    answer: str
    forced: str
    no_answer_probability: float
    passage: int
    context: str | None


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A question together with one window of its passage."""

    window: EncodedPassage
    question: EncodedQuestion

    @property
    def tokens(self) -> list[int]:
        return [*self.window.prefix_ids, *self.question.prompt_ids]


def reply_to(windows: Iterable[EncodedPassage], generator: Generator, *, extractive: bool) -> list[Reply]:
    """Answer all questions of `windows`, in order of first appearance.

    Args:
        windows: passages or their windows. A question that is in several windows gets one reply.
        generator: generates the answers.
        extractive: replace an answer that does not occur in the window with the nearest span of the window, or with ""
            if they share no word.
    """
    chosen = _choose_windows(windows, generator)
    prompts = [prompt for prompt, _ in chosen]
    answers = generator.answers([prompt.tokens for prompt in prompts])
    forced = _force(prompts, answers, generator)
    return [
        _reply(prompt, probability, answer, best, extractive=extractive)
        for (prompt, probability), answer, best in zip(chosen, answers, forced, strict=True)
    ]


def _choose_windows(windows: Iterable[EncodedPassage], generator: Generator) -> list[tuple[_Prompt, float]]:
    """Return, for each question, the prompt with the lowest no-answer probability, and this probability."""
    prompts = [_Prompt(window, question) for window in windows for question in window.questions]
    probabilities = generator.no_answer_probabilities([prompt.tokens for prompt in prompts])
    chosen: dict[str, tuple[_Prompt, float]] = {}
    for prompt, probability in zip(prompts, probabilities, strict=True):
        best = chosen.get(prompt.question.id)
        if best is None or probability < best[1]:
            chosen[prompt.question.id] = (prompt, probability)
    return list(chosen.values())


def _force(prompts: Sequence[_Prompt], answers: Sequence[str], generator: Generator) -> list[str]:
    """Return the answers, with a forced one in place of each abstention."""
    abstained = [prompt.tokens for prompt, answer in zip(prompts, answers, strict=True) if not answer]
    guesses = iter(generator.answers(abstained, forced=True))
    return [answer or next(guesses) for answer in answers]


def _reply(prompt: _Prompt, probability: float, answer: str, forced: str, *, extractive: bool) -> Reply:
    window = prompt.window
    if extractive and window.context is not None:
        answer = answer and nearest_span(answer, window.context)
        forced = nearest_span(forced, window.context)
    return Reply(prompt.question, answer, forced, probability, window.passage, window.context)
