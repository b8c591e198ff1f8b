"""Score replies and report the scores. `score_replies` scores each question once; all reports use its result."""

from collections.abc import Sequence
from dataclasses import dataclass

from falcon_job.inference.replies import Reply
from falcon_job.qa.metric import AnswerScore, best_thresholds, confidence_interval, group_means, means, score_answer

Numbers = dict[str, object]
INTERVAL_SEED = 0
"""Seed of the bootstrap: fixed, so that equal replies have equal intervals for every `train.seed`."""
CURVE_STEPS = 20


@dataclass(frozen=True, slots=True)
class ScoredReply:
    """A reply to one question, with its scores.

    Attributes:
        reply: the question and the model's reply.
        answer: score of the answer, which may be an abstention.
        forced: score of the forced answer, which the model gives even if it abstains.
        abstention: score of abstaining, even if the model did not abstain.
    """

    reply: Reply
    answer: AnswerScore
    forced: AnswerScore
    abstention: AnswerScore


def score_replies(replies: Sequence[Reply]) -> list[ScoredReply]:
    """Score each reply, in order."""
    return [_score(reply) for reply in replies]


def _score(reply: Reply) -> ScoredReply:
    golds = reply.question.answers
    return ScoredReply(
        reply=reply,
        answer=score_answer(reply.answer, golds),
        forced=score_answer(reply.forced, golds),
        abstention=score_answer("", golds),
    )


def evaluation_report(scored: Sequence[ScoredReply]) -> Numbers:
    """Return the content of eval.json: scores in percent, totals as numbers of questions.

    `oracle` holds the best scores that the official script finds for the forced answers and their no-answer
    probabilities. They are an upper bound, because the threshold is chosen on the same questions that it is scored on.
    """
    answers = [row.answer for row in scored]
    return {
        **means(answers),
        "exact_ci": _interval(scored, [score.exact for score in answers]),
        "f1_ci": _interval(scored, [score.f1 for score in answers]),
        **group_means(answers, "has_ans", "no_ans"),
        "always_abstain_f1": means([row.abstention for row in scored])["f1"],
        "threshold": None,
        "oracle": best_thresholds([row.forced for row in scored], [row.reply.no_answer_probability for row in scored]),
    }


def _interval(scored: Sequence[ScoredReply], values: Sequence[float]) -> dict[str, float]:
    low, high = confidence_interval(values, [row.reply.passage for row in scored], seed=INTERVAL_SEED)
    return {"low": low, "high": high}


def threshold_curve(scored: Sequence[ScoredReply]) -> list[dict[str, float]]:
    """Return exact match and F1 at thresholds 0, 0.05, ..., 1.

    At each threshold, replies with a higher no-answer probability abstain, and all others give their forced answer.
    """
    return [_curve_point(scored, step / CURVE_STEPS) for step in range(CURVE_STEPS + 1)]


def _curve_point(scored: Sequence[ScoredReply], threshold: float) -> dict[str, float]:
    decided = [row.abstention if row.reply.no_answer_probability > threshold else row.forced for row in scored]
    numbers = means(decided)
    return {"threshold": threshold, "exact": numbers["exact"], "f1": numbers["f1"]}


def answerability(scored: Sequence[ScoredReply]) -> list[dict[str, str]]:
    """Return a row for each question, for a confusion plot: whether it has an answer, and whether one was given."""
    words = {True: "answerable", False: "unanswerable"}
    return [{"actual": words[row.answer.answerable], "predicted": words[row.answer.answered]} for row in scored]


def samples(scored: Sequence[ScoredReply], count: int = 5) -> dict[str, list[dict[str, object]]]:
    """Return the first `count` replies of each kind, as examples: right, wrong, wrongly abstained."""
    kinds: dict[str, list[dict[str, object]]] = {"right": [], "wrong": [], "wrongly_abstained": []}
    for row in scored:
        kind = kinds[_kind(row.answer)]
        if len(kind) < count:
            kind.append(_sample(row.reply))
    return kinds


def _kind(score: AnswerScore) -> str:
    if score.exact == 1:
        return "right"
    return "wrong" if score.answered else "wrongly_abstained"


def _sample(reply: Reply) -> dict[str, object]:
    return {
        "id": reply.question.id,
        "passage": reply.context,
        "question": reply.question.question,
        "gold": reply.question.answers,
        "answer": reply.answer,
        "forced": reply.forced,
        "na_prob": reply.no_answer_probability,
    }
