"""The verdict on a model: the official numbers over its replies, with intervals and what a threshold could gain."""

from collections.abc import Mapping, Sequence

from falcon_job.inference.replies import Reply
from falcon_job.qa.metric import confidence_interval, question_scores, score

Numbers = dict[str, object]
INTERVAL_SEED = 0
"""Of the bootstrap draws; an interval is of the same replies whatever the run's seed."""
CURVE_STEPS = 20


def evaluate_replies(replies: Sequence[Reply]) -> Numbers:
    """Return the content of eval.json: percent, totals in questions.

    `oracle` is what the official script gives for forced answers with their probabilities: a bound, since its threshold
    is chosen on these very questions.
    """
    references = _references(replies)
    decided = {reply.question.id: reply.answer for reply in replies}
    official = score(decided, dict.fromkeys(decided, 0.0), references)
    bound = score(_forced(replies), _probabilities(replies), references)
    questions = question_scores(decided, references)
    passages = {reply.question.id: reply.passage for reply in replies}
    numbers: Numbers = {"exact": official["exact"], "f1": official["f1"], "total": official["total"]}
    for i, name in enumerate(("exact", "f1")):
        low, high = confidence_interval({k: v[i] for k, v in questions.items()}, passages, seed=INTERVAL_SEED)
        numbers[f"{name}_ci"] = {"low": low, "high": high}
    for prefix, official_prefix in (("has_ans", "HasAns"), ("no_ans", "NoAns")):
        for key in ("exact", "f1", "total"):
            if f"{official_prefix}_{key}" in official:
                numbers[f"{prefix}_{key}"] = official[f"{official_prefix}_{key}"]
    abstained = question_scores(dict.fromkeys(references, ""), references).values()
    numbers["always_abstain_f1"] = 100 * sum(f1 for _, f1 in abstained) / len(references)
    numbers["threshold"] = None
    numbers["oracle"] = {key: bound[key] for key in ("best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh")}
    return numbers


def threshold_curve(replies: Sequence[Reply]) -> list[dict[str, float]]:
    """Return exact and F1 of forced answers when those with a higher probability of "no answer" abstain."""
    references = _references(replies)
    forced, probabilities = _forced(replies), _probabilities(replies)
    curve = []
    for i in range(CURVE_STEPS + 1):
        threshold = i / CURVE_STEPS
        kept = {name: "" if probabilities[name] > threshold else text for name, text in forced.items()}
        pairs = question_scores(kept, references).values()
        exact, f1 = (100 * sum(column) / len(references) for column in zip(*pairs, strict=True))
        curve.append({"threshold": threshold, "exact": exact, "f1": f1})
    return curve


def answerability(replies: Sequence[Reply]) -> list[dict[str, str]]:
    """Return one row a question for a confusion plot: whether it has an answer, whether one was given."""
    words = {True: "answerable", False: "unanswerable"}
    return [
        {"actual": words[bool(reply.question.answers)], "predicted": words[bool(reply.answer)]} for reply in replies
    ]


def samples(replies: Sequence[Reply], count: int = 5) -> dict[str, list[dict[str, object]]]:
    """Return some replies of each kind to read: right, wrong, wrongly abstained."""
    scores = question_scores({reply.question.id: reply.answer for reply in replies}, _references(replies))
    kinds: dict[str, list[dict[str, object]]] = {"right": [], "wrong": [], "wrongly_abstained": []}
    for reply in replies:
        right = scores[reply.question.id][0] == 1
        kind = "right" if right else "wrong" if reply.answer else "wrongly_abstained"
        if len(kinds[kind]) < count:
            kinds[kind].append(_sample(reply))
    return kinds


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


def _references(replies: Sequence[Reply]) -> Mapping[str, Sequence[str]]:
    return {reply.question.id: reply.question.answers for reply in replies}


def _forced(replies: Sequence[Reply]) -> dict[str, str]:
    return {reply.question.id: reply.forced for reply in replies}


def _probabilities(replies: Sequence[Reply]) -> dict[str, float]:
    return {reply.question.id: reply.no_answer_probability for reply in replies}
