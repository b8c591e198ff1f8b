import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_job.inference.evaluation import answerability, evaluation_report, samples, score_replies, threshold_curve
from falcon_job.inference.replies import Reply
from falcon_job.qa.metric import official_scores
from falcon_job.tokens.dataset import EncodedQuestion
from tests.inference.finished_run import mean, official

KEYS = {
    *("exact", "f1", "total", "exact_ci", "f1_ci", "always_abstain_f1", "threshold", "oracle"),
    *("has_ans_exact", "has_ans_f1", "has_ans_total", "no_ans_exact", "no_ans_f1", "no_ans_total"),
}
ORACLE_KEYS = {"best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"}


def reply(name, golds, answer, probability, forced=None, passage=0):
    question = EncodedQuestion(name, f"Question {name}?", golds, [1], [2])
    return Reply(question, answer, forced or answer or "guess", probability, passage, "A passage.")


REPLIES = [
    reply("right", ["Anna Berg", "Berg"], "the Anna Berg", 0.1),
    reply("half", ["Anna Berg"], "Anna Dahl", 0.2, passage=1),
    reply("wrong", ["1200"], "blue whale", 0.3, passage=1),
    reply("abstained", ["Oslo"], "", 0.9, forced="Oslo", passage=2),
    reply("rightly abstained", [], "", 0.7, passage=2),
    reply("answered in vain", [], "whale", 0.4, passage=3),
]
TEXTS = st.sampled_from(["", "Anna Berg", "Berg", "the bridge", "bridge of Oslo", "1200", "Oslo."])


@st.composite
def many_replies(draw):
    count = draw(st.integers(1, 8))
    return [
        reply(
            str(i),
            draw(st.lists(TEXTS.filter(bool), max_size=2)),
            draw(TEXTS),
            draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
            forced=draw(TEXTS.filter(bool)),
            passage=i // 2,
        )
        for i in range(count)
    ]


def report(replies):
    return evaluation_report(score_replies(replies))


def golds(replies):
    return {r.question.id: r.question.answers for r in replies}


def test_the_keys_are_those_of_the_contract():
    numbers = report(REPLIES)
    assert set(numbers) == KEYS
    assert set(numbers["oracle"]) == ORACLE_KEYS
    assert set(numbers["exact_ci"]) == set(numbers["f1_ci"]) == {"low", "high"}
    assert numbers["threshold"] is None


def test_numbers_of_a_small_example_worked_by_hand():
    numbers = report(REPLIES)
    assert numbers["exact"] == pytest.approx(100 * 2 / 6)
    assert numbers["f1"] == pytest.approx(100 * 2.5 / 6)
    assert (numbers["has_ans_exact"], numbers["has_ans_f1"], numbers["has_ans_total"]) == (25, 37.5, 4)
    assert (numbers["no_ans_exact"], numbers["no_ans_f1"], numbers["no_ans_total"]) == (50, 50, 2)
    assert numbers["total"] == 6
    assert numbers["always_abstain_f1"] == pytest.approx(100 * 2 / 6)
    # Forced, by rising probability: right +1, half 0, wrong 0, in vain -1, rightly abstained -1, abstained +1; start 2.
    assert numbers["oracle"]["best_exact"] == pytest.approx(50)
    assert numbers["oracle"]["best_exact_thresh"] == 0.1
    assert numbers["oracle"]["best_f1"] == pytest.approx(100 * 3.5 / 6)
    assert numbers["oracle"]["best_f1_thresh"] == 0.2


@settings(max_examples=40, deadline=None)
@given(many_replies())
def test_numbers_equal_those_of_a_second_implementation(replies):
    numbers = report(replies)
    scores = official({r.question.id: r.answer for r in replies}, golds(replies))
    groups = {"": list(scores), "has_ans_": [], "no_ans_": []}
    for r in replies:
        groups["has_ans_" if r.question.answers else "no_ans_"].append(r.question.id)
    for prefix, names in groups.items():
        if names:
            for column, key in enumerate(("exact", "f1")):
                assert numbers[f"{prefix}{key}"] == pytest.approx(mean([scores[name] for name in names], column))
            assert numbers[f"{prefix}total"] == len(names)
        else:
            assert f"{prefix}total" not in numbers
    for column, key in enumerate(("exact", "f1")):
        assert numbers[f"{key}_ci"]["low"] <= numbers[key] + 1e-9
        assert numbers[f"{key}_ci"]["high"] >= numbers[key] - 1e-9
        assert numbers["oracle"][f"best_{key}"] == pytest.approx(best_over_thresholds(replies, column))
    silent = official(dict.fromkeys(golds(replies), ""), golds(replies))
    assert numbers["always_abstain_f1"] == pytest.approx(mean(list(silent.values()), 1))


@settings(max_examples=40, deadline=None)
@given(many_replies())
def test_the_oracle_is_the_official_score_of_the_written_files(replies):
    forced = {r.question.id: r.forced for r in replies}
    na_prob = {r.question.id: r.no_answer_probability for r in replies}
    official_numbers = official_scores(forced, na_prob, golds(replies))
    assert report(replies)["oracle"] == {key: official_numbers[key] for key in ORACLE_KEYS}


def best_over_thresholds(replies, column):
    """Try every cut in the order of probabilities, ties in the order of the replies, as the official script does."""
    ordered = sorted(replies, key=lambda r: r.no_answer_probability)
    best = 0.0
    for count in range(len(ordered) + 1):
        kept = {r.question.id for r in ordered[:count]}
        said = {r.question.id: r.forced if r.question.id in kept else "" for r in replies}
        best = max(best, mean(list(official(said, golds(replies)).values()), column))
    return best


def test_an_interval_is_over_passages_and_the_same_each_time():
    numbers = report(REPLIES)
    assert numbers == report(REPLIES)
    assert numbers["exact_ci"]["low"] < numbers["exact"] < numbers["exact_ci"]["high"]
    one_passage = [reply(str(i), ["Oslo"], "Oslo" if i % 2 else "Turku", 0.1) for i in range(6)]
    assert report(one_passage)["exact_ci"] == {"low": 50, "high": 50}


@settings(max_examples=20, deadline=None)
@given(many_replies())
def test_the_threshold_curve_scores_forced_answers_at_each_threshold(replies):
    curve = threshold_curve(score_replies(replies))
    assert [point["threshold"] for point in curve] == [i / 20 for i in range(21)]
    for point in curve[::5]:
        said = {r.question.id: "" if r.no_answer_probability > point["threshold"] else r.forced for r in replies}
        scores = list(official(said, golds(replies)).values())
        assert (point["exact"], point["f1"]) == pytest.approx((mean(scores, 0), mean(scores, 1)))


def test_the_threshold_curve_ends_where_nobody_abstains():
    last = threshold_curve(score_replies(REPLIES))[-1]
    forced = official({r.question.id: r.forced for r in REPLIES}, golds(REPLIES))
    assert last == {
        "threshold": 1.0,
        "exact": pytest.approx(mean(list(forced.values()), 0)),
        "f1": pytest.approx(2.5 / 0.06),
    }


def test_answerability_counts_answers_given_against_answers_that_exist():
    rows = [(row["actual"], row["predicted"]) for row in answerability(score_replies(REPLIES))]
    assert rows == [
        ("answerable", "answerable"),
        ("answerable", "answerable"),
        ("answerable", "answerable"),
        ("answerable", "unanswerable"),
        ("unanswerable", "unanswerable"),
        ("unanswerable", "answerable"),
    ]


def test_samples_are_sorted_into_right_wrong_and_wrongly_abstained():
    kinds = {kind: [sample["id"] for sample in found] for kind, found in samples(score_replies(REPLIES)).items()}
    assert kinds == {
        "right": ["right", "rightly abstained"],
        "wrong": ["half", "wrong", "answered in vain"],
        "wrongly_abstained": ["abstained"],
    }


def test_samples_hold_what_a_reader_needs_and_stay_few():
    many = [reply(str(i), ["Oslo"], "Turku", 0.1, passage=i) for i in range(50)]
    (sample, *others) = samples(score_replies(many))["wrong"]
    assert len(others) < 10
    assert sample == {
        "id": "0",
        "passage": "A passage.",
        "question": "Question 0?",
        "gold": ["Oslo"],
        "answer": "Turku",
        "forced": "Turku",
        "na_prob": 0.1,
    }
