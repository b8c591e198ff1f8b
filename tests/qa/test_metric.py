import math
import os
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
from falcon_job.qa.metric import confidence_interval, normalize_answer, question_scores, score

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


def test_question_scores_of_worked_examples() -> None:
    predictions = {
        "same": "The cat.",
        "half": "black cat",
        "best": "dog",
        "kept": "",
        "invented": "x",
        "empty": "",
    }
    references = {
        "same": ["cat"],
        "half": ["cat sat"],
        "best": ["cat", "Dog!"],
        "kept": [],
        "invented": [],
        "empty": ["the", "cat"],
    }
    assert question_scores(predictions, references) == {
        "same": (1, 1),
        "half": (0, 0.5),
        "best": (1, 1),
        "kept": (1, 1),
        "invented": (0, 0),
        "empty": (0, 0),  # "the" is no gold answer: nothing is left of it
    }


def test_only_gold_answers_without_words_ask_for_an_empty_answer() -> None:
    assert question_scores({"q": "the"}, {"q": ["a", "..."]}) == {"q": (1, 1)}


@settings(deadline=None)
@given(numbered(st.tuples(texts, st.lists(real_texts, min_size=1, max_size=3))))
def test_answerable_questions_score_as_in_torchmetrics(rows: dict[str, tuple[str, list[str]]]) -> None:
    predictions = {name: prediction for name, (prediction, _) in rows.items()}
    references = {name: golds for name, (_, golds) in rows.items()}
    expected = squad(
        [{"id": name, "prediction_text": text} for name, text in predictions.items()],
        [{"id": name, "answers": {"text": golds, "answer_start": []}} for name, golds in references.items()],
    )
    scores = question_scores(predictions, references).values()
    assert 100 * np.mean([exact for exact, _ in scores]) == pytest.approx(float(expected["exact_match"]))
    assert 100 * np.mean([f1 for _, f1 in scores]) == pytest.approx(float(expected["f1"]))
    numbers = score(predictions, dict.fromkeys(predictions, 0.0), references)
    assert numbers["exact"] == pytest.approx(float(expected["exact_match"]))
    assert numbers["f1"] == pytest.approx(float(expected["f1"]))


def test_score_of_a_worked_example_has_the_official_names_and_numbers() -> None:
    # By na_prob: "right" gains 1, "wrong" loses 1, "close" gains 0 exact and 2/3 F1, "silent" gains nothing.
    predictions = {"right": "cat", "wrong": "dog", "close": "red cat", "silent": ""}
    na_prob = {"right": 0.1, "wrong": 0.2, "close": 0.4, "silent": 0.9}
    references = {"right": ["cat"], "wrong": [], "close": ["cat"], "silent": []}
    assert score(predictions, na_prob, references) == pytest.approx(
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
    assert score(predictions, na_prob, references, threshold=0.3)["exact"] == 100
    assert score(predictions, na_prob, references, threshold=0.2)["exact"] == 50
    assert score(predictions, na_prob, references)["exact"] == 50


def test_questions_of_one_kind_give_numbers_of_that_kind_only() -> None:
    unanswerable = score({"q": ""}, {"q": 0.5}, {"q": []})
    assert {key.split("_")[0] for key in unanswerable} == {"exact", "f1", "total", "NoAns", "best"}
    assert (unanswerable["exact"], unanswerable["best_f1"], unanswerable["best_f1_thresh"]) == (100, 100, 0)
    answerable = score({"q": "x"}, {"q": 0.5}, {"q": ["x"]})
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
    numbers = score(predictions, na_prob, references)
    for index, key in enumerate(("exact", "f1")):
        by_threshold = {}
        for threshold in [0.0, *sorted(na_prob.values())]:
            decided = {name: "" if na_prob[name] > threshold else predictions[name] for name in rows}
            scores = question_scores(decided, references)
            by_threshold[threshold] = 100 * np.mean([pair[index] for pair in scores.values()])
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
    with pytest.raises(InputError, match=rf"{what}: 1 question\(s\) without: 'b'; 1 unknown id\(s\): 'stranger'"):
        score(complete["predictions"], complete["na_prob"], {"a": [], "b": []})


def test_a_probability_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="na_prob of question 'q' is nan"):
        score({"q": ""}, {"q": math.nan}, {"q": []})


def test_no_questions_have_no_score() -> None:
    with pytest.raises(InputError, match="no questions"):
        score({}, {}, {})
    with pytest.raises(InputError, match="no questions"):
        confidence_interval({}, {}, seed=0)


def test_scoring_opens_no_socket_and_leaves_no_file(tmp_path: Path) -> None:
    code = """
import sys

def refuse(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        raise AssertionError(event)

sys.addaudithook(refuse)
from falcon_job.qa.metric import score
print(score({"q": "x"}, {"q": 0.5}, {"q": ["x"]})["exact"])
"""
    unset = ("HF_", "HUGGINGFACE_", "XDG_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(unset)}
    environment |= dict.fromkeys(("HOME", "TMPDIR"), str(tmp_path))
    environment["PYTHONPATH"] = str(Path(falcon_job.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("100.0\n", 0), done.stderr
    assert list(tmp_path.rglob("*")) == []


def test_question_scores_do_without_the_evaluate_library() -> None:
    code = (
        "import sys; sys.modules['evaluate'] = None\n"
        "from falcon_job.qa.metric import question_scores, confidence_interval\n"
        "question_scores({'q': 'x'}, {'q': ['x']})\n"
        "assert not {'datasets', 'torch', 'pyarrow'} & set(sys.modules)"
    )
    root = Path(falcon_job.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_the_interval_of_single_questions_is_that_of_the_binomial() -> None:
    scores = {f"q{i}": float(i < 300) for i in range(1000)}
    low, high = confidence_interval(scores, {name: name for name in scores}, seed=1)
    margin = 196 * math.sqrt(0.3 * 0.7 / 1000)  # percent
    assert low == pytest.approx(30 - margin, abs=0.4)
    assert high == pytest.approx(30 + margin, abs=0.4)


def test_questions_that_share_their_passage_count_as_one() -> None:
    scores = {f"q{i}": float(i % 2) for i in range(100)}
    repeated = {f"{name}-{copy}": value for name, value in scores.items() for copy in range(7)}
    single = confidence_interval(scores, {name: name for name in scores}, seed=3)
    shared = confidence_interval(repeated, {name: name.split("-")[0] for name in repeated}, seed=3)
    assert shared == pytest.approx(single)


def test_intervals_depend_on_the_seed_alone() -> None:
    scores = {f"q{i}": i / 50 for i in range(50)}
    passages = {f"q{i}": i % 7 for i in range(50)}
    first = confidence_interval(scores, passages, seed=5)
    assert confidence_interval(scores, passages, seed=5) == first
    assert confidence_interval(scores, passages, seed=6) != first
    assert first[0] < 100 * np.mean(list(scores.values())) < first[1]


def test_differences_of_scores_have_an_interval_too() -> None:
    differences = {f"q{i}": [-1.0, 0.0, 0.0, 1.0][i % 4] for i in range(400)}
    low, high = confidence_interval(differences, {name: name for name in differences}, seed=0)
    assert -12 < low < 0 < high < 12


def test_a_score_without_a_passage_is_named() -> None:
    with pytest.raises(InputError, match="'q2'"):
        confidence_interval({"q1": 1.0, "q2": 0.0}, {"q1": 0}, seed=0)
