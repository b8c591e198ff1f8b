"""A reply to each question: every window of its passage is asked, the one least sure of "no answer" speaks."""

from collections.abc import Iterable
from dataclasses import dataclass

from falcon_job.inference.generation import Generator
from falcon_job.qa.span import nearest_span
from falcon_job.tokens.dataset import EncodedPassage, EncodedQuestion


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says to a question.

    Attributes:
        answer: the decision; "" abstains.
        forced: the best answer when abstaining is ruled out; "" only where extraction finds no word of it.
        no_answer_probability: P(no-answer phrase) in the window that speaks, 0 to 1.
        passage: number of the passage in its split.
        context: the window that speaks; None for closed book.
    """

    question: EncodedQuestion
    answer: str
    forced: str
    no_answer_probability: float
    passage: int
    context: str | None


@dataclass(frozen=True, slots=True)
class _Asked:
    row: EncodedPassage
    question: EncodedQuestion

    @property
    def prompt(self) -> list[int]:
        return [*self.row.prefix_ids, *self.question.prompt_ids]


def reply_to(rows: Iterable[EncodedPassage], generator: Generator, *, extractive: bool) -> list[Reply]:
    """Answer all questions of `rows`, in order of first appearance; with `extractive` each answer is a span.

    Args:
        rows: passages or windows; a question that stands in several gets one reply.
        generator: the model.
        extractive: replace an answer that is no span of the window by the nearest one, "" if they share no word.
    """
    asked = [_Asked(row, question) for row in rows for question in row.questions]
    probabilities = generator.no_answer_probabilities([one.prompt for one in asked])
    speaking: dict[str, tuple[float, _Asked]] = {}
    for one, probability in zip(asked, probabilities, strict=True):
        best = speaking.get(one.question.id)
        if best is None or probability < best[0]:
            speaking[one.question.id] = (probability, one)
    chosen = [one for _, one in speaking.values()]
    answers = generator.answers([one.prompt for one in chosen])
    guesses = iter(
        generator.answers([one.prompt for one, answer in zip(chosen, answers, strict=True) if not answer], forced=True)
    )
    replies = []
    for (probability, one), answer in zip(speaking.values(), answers, strict=True):
        forced = answer or next(guesses)
        if extractive and one.row.context is not None:
            answer = answer and nearest_span(answer, one.row.context)
            forced = nearest_span(forced, one.row.context)
        replies.append(Reply(one.question, answer, forced, probability, one.row.passage, one.row.context))
    return replies
