import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import squad

import falcon_job
from falcon_job.errors import InputError
from falcon_job.qa.metric import (
    AnswerScore,
    confidence_interval,
    means,
    normalize_answer,
    official_scores,
    question_scores,
    score_answer,
)

WORDS = ["the", "A", "an", "Cat", "cat", "dog!", "U.S.", "...", "Caf\u00e9", "\u2014", "red-hot", "1066"]
texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
real_texts = texts.filter(normalize_answer)
abstentions = st.just("")


def numbered(row: st.SearchStrategy[tuple[object, ...]]) -> st.SearchStrategy[dict[str, tuple[object, ...]]]:
    return st.lists(row, min_size=1, max_size=8).map(lambda rows: {f"q{i}": row for i, row in enumerate(rows)})


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat,\tsat.", "cat sat"),
        ("a an the", ""),
        ("Athens, an anthem", "athens anthem"),
        ("U.S.A.", "usa"),
        ("\u00c9cole \u2014 the \u4e2d\u6587!", "\u00e9cole \u2014 \u4e2d\u6587"),
    ],
)
def test_normalization_lowers_and_drops_punctuation_and_articles(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("The cat.", ["cat"], 1, 1),
        ("black cat", ["cat sat"], 0, 0.5),
        ("dog", ["cat", "Dog!"], 1, 1),
        ("", [], 1, 1),
        ("x", [], 0, 0),
        ("", ["the", "cat"], 0, 0),  # normalization leaves nothing of "the", so only "cat" counts
        ("the", ["a", "..."], 1, 1),  # ... and nothing of any gold answer: the empty answer is right
    ],
)
def test_scores_of_worked_examples(answer: str, golds: list[str], exact: float, f1: float) -> None:
    assert score_answer(answer, golds) == AnswerScore(exact, f1, answered=answer != "", answerable=bool(golds))


def test_scores_of_questions_come_in_the_order_of_the_references() -> None:
    scores = question_scores({"b": "cat", "a": ""}, {"a": ["dog"], "b": ["cat"]})
    assert list(scores) == ["a", "b"]
    assert scores == {"a": score_answer("", ["dog"]), "b": score_answer("cat", ["cat"])}


@settings(deadline=None)
@given(numbered(st.tuples(texts, st.lists(real_texts, min_size=1, max_size=3))))
def test_answerable_questions_score_as_in_torchmetrics(rows: dict[str, tuple[str, list[str]]]) -> None:
    predictions = {name: prediction for name, (prediction, _) in rows.items()}
    references = {name: golds for name, (_, golds) in rows.items()}
    expected = squad(
        [{"id": name, "prediction_text": text} for name, text in predictions.items()],
        [{"id": name, "answers": {"text": golds, "answer_start": []}} for name, golds in references.items()],
    )
    numbers = means(list(question_scores(predictions, references).values()))
    assert numbers["exact"] == pytest.approx(float(expected["exact_match"]))
    assert numbers["f1"] == pytest.approx(float(expected["f1"]))


def test_a_worked_example_has_the_official_names_and_numbers() -> None:
    # By na_prob: "right" gains 1, "wrong" loses 1, "close" gains 0 exact and 2/3 F1, "silent" gains nothing.
    predictions = {"right": "cat", "wrong": "dog", "close": "red cat", "silent": ""}
    na_prob = {"right": 0.1, "wrong": 0.2, "close": 0.4, "silent": 0.9}
    references = {"right": ["cat"], "wrong": [], "close": ["cat"], "silent": []}
    assert official_scores(predictions, na_prob, references) == pytest.approx(
        {
            "exact": 50,
            "f1": 100 * (1 + 0 + 2 / 3 + 1) / 4,
            "total": 4,
            "HasAns_exact": 50,
            "HasAns_f1": 100 * (1 + 2 / 3) / 2,
            "HasAns_total": 2,
            "NoAns_exact": 50,
            "NoAns_f1": 50,
            "NoAns_total": 2,
            "best_exact": 75,
            "best_exact_thresh": 0.1,
            "best_f1": 75,
            "best_f1_thresh": 0.1,
        }
    )


def test_an_answer_stands_at_the_threshold_and_falls_above_it() -> None:
    predictions, references = {"a": "cat", "b": "dog"}, {"a": ["cat"], "b": []}
    na_prob = {"a": 0.3, "b": 0.3000001}  # apart in double precision, all but equal in single
    assert official_scores(predictions, na_prob, references, threshold=0.3)["exact"] == 100
    assert official_scores(predictions, na_prob, references, threshold=0.2)["exact"] == 50
    assert official_scores(predictions, na_prob, references)["exact"] == 50


def test_questions_of_one_kind_give_numbers_of_that_kind_only() -> None:
    unanswerable = official_scores({"q": ""}, {"q": 0.5}, {"q": []})
    assert {key.split("_")[0] for key in unanswerable} == {"exact", "f1", "total", "NoAns", "best"}
    assert (unanswerable["exact"], unanswerable["best_f1"], unanswerable["best_f1_thresh"]) == (100, 100, 0)
    answerable = official_scores({"q": "x"}, {"q": 0.5}, {"q": ["x"]})
    assert {key.split("_")[0] for key in answerable} == {"exact", "f1", "total", "HasAns", "best"}
    assert (answerable["exact"], answerable["best_f1"], answerable["best_f1_thresh"]) == (100, 100, 0.5)


@settings(deadline=None, max_examples=30)
@given(
    numbered(st.tuples(real_texts | abstentions, st.lists(real_texts, max_size=2), st.floats(0.01, 1))).filter(
        lambda rows: len({row[2] for row in rows.values()}) == len(rows)
    )
)
def test_the_best_threshold_is_that_of_an_exhaustive_search(
    rows: dict[str, tuple[str, list[str], float]],
) -> None:
    predictions = {name: prediction for name, (prediction, _, _) in rows.items()}
    references = {name: golds for name, (_, golds, _) in rows.items()}
    na_prob = {name: probability for name, (_, _, probability) in rows.items()}
    numbers = official_scores(predictions, na_prob, references)
    for key in ("exact", "f1"):
        by_threshold = {}
        for threshold in [0.0, *sorted(na_prob.values())]:
            decided = {name: "" if na_prob[name] > threshold else predictions[name] for name in rows}
            scores = question_scores(decided, references)
            by_threshold[threshold] = 100 * np.mean([getattr(each, key) for each in scores.values()])
        best = max(by_threshold.values())
        assert numbers[f"best_{key}"] == pytest.approx(best)
        assert by_threshold[numbers[f"best_{key}_thresh"]] == pytest.approx(best)


@pytest.mark.parametrize("what", ["predictions", "na_prob"])
def test_missing_and_unknown_ids_are_named(what: str) -> None:
    complete: dict[str, dict[str, Any]] = {
        "predictions": {"a": "x", "b": "y"},
        "na_prob": {"a": 0.0, "b": 0.0},
    }
    complete[what]["stranger"] = complete[what].pop("b")
    with pytest.raises(InputError) as caught:
        official_scores(complete["predictions"], complete["na_prob"], {"a": [], "b": []})
    assert caught.value.place == what
    assert caught.value.problem == "must have one value per question (1 missing: 'b'; 1 unknown: 'stranger')"


def test_a_probability_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="na_prob of question 'q' is nan: give a finite number"):
        official_scores({"q": ""}, {"q": math.nan}, {"q": []})


def test_no_questions_have_no_score() -> None:
    with pytest.raises(InputError, match="no questions"):
        official_scores({}, {}, {})
    with pytest.raises(InputError, match="no questions"):
        means([])
    with pytest.raises(InputError, match="no questions"):
        confidence_interval([], [], seed=0)


def test_scoring_imports_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from falcon_job.qa.metric import official_scores\n"
        "official_scores({'q': 'x'}, {'q': 0.5}, {'q': ['x']})\n"
        "assert not {'evaluate', 'datasets', 'torch', 'pyarrow'} & set(sys.modules)"
    )
    root = Path(falcon_job.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_the_interval_of_independent_questions_is_that_of_the_binomial() -> None:
    low, high = confidence_interval([float(i < 300) for i in range(1000)], range(1000), seed=1)
    margin = 196 * math.sqrt(0.3 * 0.7 / 1000)  # percent
    assert low == pytest.approx(30 - margin, abs=0.4)
    assert high == pytest.approx(30 + margin, abs=0.4)


def test_questions_that_share_their_passage_count_as_one() -> None:
    values = [float(i % 2) for i in range(100)]
    single = confidence_interval(values, range(100), seed=3)
    shared = confidence_interval(values * 7, [*range(100)] * 7, seed=3)
    assert shared == pytest.approx(single)


def test_an_interval_depends_on_its_seed() -> None:
    values, passages = [i / 50 for i in range(50)], [i % 7 for i in range(50)]
    first = confidence_interval(values, passages, seed=5)
    assert confidence_interval(values, passages, seed=5) == first
    assert confidence_interval(values, passages, seed=6) != first
    assert first[0] < 100 * np.mean(values) < first[1]


def test_differences_of_scores_have_an_interval_too() -> None:
    low, high = confidence_interval([-1.0, 0.0, 0.0, 1.0] * 100, range(400), seed=0)
    assert -12 < low < 0 < high < 12
