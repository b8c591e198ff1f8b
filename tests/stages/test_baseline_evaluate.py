import csv
import json

import pytest

from falcon_job.errors import InputError
from falcon_job.inference.generation import Generator
from falcon_job.machine import Machine
from falcon_job.model.adapter import load_adapter
from falcon_job.records.dataset import read_passages
from falcon_job.stages.baseline import baseline
from falcon_job.stages.evaluate import evaluate
from falcon_job.tokens.dataset import Split
from falcon_job.workspace import Workspace
from tests.inference.finished_run import (
    WRONG,
    base_of,
    encoder_of,
    finished_run,
    fresh_copy,
    make_params,
    mean,
    official,
)

KEYS = {
    *("exact", "f1", "total", "exact_ci", "f1_ci", "always_abstain_f1", "threshold", "oracle", "run"),
    *("has_ans_exact", "has_ans_f1", "has_ans_total", "no_ans_exact", "no_ans_f1", "no_ans_total"),
}
OFFICIAL = ("predictions.json", "forced.json", "na_prob.json")


def scored(folder, machine=None, **changes) -> Workspace:
    run = finished_run()
    workspace = fresh_copy(folder, run.workspace)
    params = make_params(**changes)
    baseline(params, machine or Machine(), workspace)
    evaluate(params, machine or Machine(), workspace)
    return workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Both stages, run once; do not change it."""
    return scored(tmp_path_factory.mktemp("scored"))


@pytest.fixture(params=["baseline", "evaluate"])
def stage(request, workspace):
    """Folder of the official files and numbers, of either stage."""
    folder = {"baseline": workspace.build / "baseline", "evaluate": workspace.build}[request.param]
    report = {"baseline": "baseline.json", "evaluate": "eval.json"}[request.param]
    return *(read(folder / name) for name in OFFICIAL), read(workspace.reports / report)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def dev_questions(workspace):
    """Read from the source, not from what preprocess made of it."""
    passages = read_passages(workspace.data / "dev.json")
    return {q.id: (passage.text, [a.text for a in q.answers]) for passage in passages for q in passage.questions}


def test_the_official_files_hold_every_dev_question_and_no_other(workspace, stage):
    for content in stage[:3]:
        assert list(content) == list(dev_questions(workspace))


def test_the_phrase_is_written_as_the_empty_answer(stage):
    predictions, forced, na_prob, _ = stage
    parts = finished_run().parts
    abstained = {name for name, answer in predictions.items() if answer == ""}
    assert abstained >= {name for name in predictions if parts[name] in ("abstains", "no answer")}
    assert all(forced.values())
    assert not any("unanswerable" in text.lower() for text in [*predictions.values(), *forced.values()])
    assert all(0 <= probability <= 1 for probability in na_prob.values())
    assert min(na_prob[name] for name in abstained) > max(na_prob[n] for n in predictions if n not in abstained)


def test_taught_answers_are_predicted(stage):
    parts = finished_run().parts
    assert {answer for name, answer in stage[0].items() if parts[name] == "wrong"} == {WRONG}


def test_the_report_has_the_keys_of_the_contract(stage):
    numbers = stage[3]
    assert set(numbers) == KEYS
    assert set(numbers["oracle"]) == {"best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"}
    assert set(numbers["exact_ci"]) == set(numbers["f1_ci"]) == {"low", "high"}
    assert numbers["threshold"] is None


def test_the_numbers_are_a_scoring_of_the_written_files(workspace, stage):
    predictions, forced, na_prob, numbers = stage
    golds = {name: answers for name, (_, answers) in dev_questions(workspace).items()}
    scores = official(predictions, golds)
    groups = {
        "": list(golds),
        "has_ans_": [name for name in golds if golds[name]],
        "no_ans_": [name for name in golds if not golds[name]],
    }
    for prefix, names in groups.items():
        assert numbers[f"{prefix}total"] == len(names)
        for column, key in enumerate(("exact", "f1")):
            assert numbers[f"{prefix}{key}"] == pytest.approx(mean([scores[name] for name in names], column))
    assert numbers["always_abstain_f1"] == pytest.approx(100 * len(groups["no_ans_"]) / len(golds))
    for column, key in enumerate(("exact", "f1")):
        threshold = numbers["oracle"][f"best_{key}_thresh"]
        at_best = {name: forced[name] if na_prob[name] <= threshold else "" for name in golds}
        best = mean(list(official(at_best, golds).values()), column)
        assert numbers["oracle"][f"best_{key}"] == pytest.approx(best)
    assert 0 < numbers["exact"] < 100


def test_baseline_is_the_base_and_evaluate_the_adapter_on_it(workspace):
    rows = Split(workspace.dataset / "dev.arrow")
    prompt = [*rows[0].prefix_ids, *rows[0].questions[0].prompt_ids]
    name = rows[0].questions[0].id
    bare = base_of(workspace)
    (expected,) = Generator(bare, encoder_of(workspace), 8, 8192).no_answer_probabilities([prompt])
    assert read(workspace.build / "baseline" / "na_prob.json")[name] == pytest.approx(expected, rel=1e-4)
    tuned = load_adapter(base_of(workspace), workspace.adapter)
    (expected_tuned,) = Generator(tuned, encoder_of(workspace), 8, 8192).no_answer_probabilities([prompt])
    assert read(workspace.build / "na_prob.json")[name] == pytest.approx(expected_tuned, rel=1e-4)
    assert expected_tuned != pytest.approx(expected, rel=1e-2)


def test_samples_show_right_wrong_and_wrongly_abstained_answers(workspace):
    golds = dev_questions(workspace)
    predictions = read(workspace.build / "predictions.json")
    samples = read(workspace.build / "samples.json")
    assert list(samples) == ["right", "wrong", "wrongly_abstained"]
    scores = official(predictions, {name: answers for name, (_, answers) in golds.items()})
    for kind, found in samples.items():
        assert found, kind
        for sample in found:
            passage, answers = golds[sample["id"]]
            assert sample["gold"] == answers
            assert sample["passage"] in passage
            assert sample["answer"] == predictions[sample["id"]]
            right = scores[sample["id"]][0] == 1
            assert kind == ("right" if right else "wrong" if sample["answer"] else "wrongly_abstained")


def test_the_curve_is_the_score_of_the_written_forced_answers(workspace):
    golds = {name: answers for name, (_, answers) in dev_questions(workspace).items()}
    forced, na_prob = read(workspace.build / "forced.json"), read(workspace.build / "na_prob.json")
    with (workspace.reports / "threshold.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["threshold", "exact", "f1"]
    assert (float(rows[0]["threshold"]), float(rows[-1]["threshold"])) == (0, 1)
    for row in rows:
        kept = {name: "" if na_prob[name] > float(row["threshold"]) else forced[name] for name in golds}
        scores = list(official(kept, golds).values())
        assert [float(row["exact"]), float(row["f1"])] == pytest.approx([mean(scores, 0), mean(scores, 1)])
    assert len({row["exact"] for row in rows}) > 1


def test_answerability_has_a_row_a_question(workspace):
    golds = dev_questions(workspace)
    predictions = read(workspace.build / "predictions.json")
    with (workspace.reports / "answerability.csv").open(newline="") as file:
        found = [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]
    words = ("unanswerable", "answerable")
    assert found == [(words[bool(golds[name][1])], words[bool(predictions[name])]) for name in golds]


def test_equal_runs_give_equal_bytes_apart_from_run(workspace, tmp_path):
    again = scored(tmp_path)
    timed = {"reports/eval.json", "reports/baseline.json"}
    files = {
        str(p.relative_to(again.root)) for p in [*again.build.rglob("*.*"), *again.reports.iterdir()] if p.is_file()
    }
    assert timed < files
    for name in files:
        first, second = (space.path(name) for space in (workspace, again))
        if name in timed:
            numbers = [{k: v for k, v in read(path).items() if k != "run"} for path in (first, second)]
            assert numbers[0] == numbers[1]
        else:
            assert first.read_bytes() == second.read_bytes(), name


def test_the_machines_batch_size_changes_no_answer(workspace, tmp_path):
    again = scored(tmp_path, Machine(tokens_per_pack=150))
    for name in ("predictions.json", "forced.json", "baseline/predictions.json"):
        assert (again.build / name).read_bytes() == (workspace.build / name).read_bytes()


def test_reports_hold_no_text_of_users(workspace):
    for path in (
        workspace.reports / name for name in ("eval.json", "baseline.json", "threshold.csv", "answerability.csv")
    ):
        text = path.read_text()
        assert not any(word in text for word in ("Anna", "bridge", WRONG, "dev-0"))


def test_limit_keeps_whole_passages_with_all_their_windows(workspace, tmp_path):
    limited = scored(tmp_path, evaluate={"limit": 10})
    found = read(limited.build / "predictions.json")
    everything = read(workspace.build / "predictions.json")
    assert 5 <= len(found) <= 10
    assert found == {name: everything[name] for name in found}
    articles = {name.split("-")[1] for name in found}
    assert all(name in found for name in everything if name.split("-")[1] in articles)
    assert read(limited.reports / "eval.json")["total"] == len(found)


def test_extractive_answers_are_spans_of_their_passages(workspace, tmp_path):
    extracted = scored(tmp_path, evaluate={"extractive": True})
    passages = {name: text for name, (text, _) in dev_questions(workspace).items()}
    for name in ("predictions.json", "forced.json", "baseline/predictions.json", "baseline/forced.json"):
        answers = read(extracted.build / name)
        assert all(answer in passages[question] for question, answer in answers.items())
        assert any(answers.values())
    assert any(text not in passages[name] for name, text in read(workspace.build / "predictions.json").items())


def test_no_answer_is_longer_than_max_new_tokens(tmp_path):
    short = scored(tmp_path, evaluate={"max_new_tokens": 1})
    encode = encoder_of(short).tokenizer.encode
    for name in ("forced.json", "baseline/forced.json"):
        assert all(len(encode(f" {text}", add_special_tokens=False)) <= 1 for text in read(short.build / name).values())


def test_4_bit_models_are_scored_by_the_same_code(tmp_path):
    workspace = scored(tmp_path, model={"precision": "nf4"})
    assert read(workspace.reports / "eval.json")["total"] == len(dev_questions(workspace))


@pytest.mark.parametrize(
    ("missing", "stage", "message"),
    [
        ("build/base.json", baseline, "base.json is missing: run `falcon-job fetch`"),
        ("build/dataset/dev.arrow", baseline, "dev.arrow cannot be read .*run `falcon-job run preprocess`"),
        ("build/adapter/adapter_config.json", evaluate, "has no adapter_config.json: run `falcon-job run train`"),
        ("build/adapter/adapter_model.safetensors", evaluate, "has no adapter_model.safetensors: run"),
        ("data/tiny/tokenizer.json", evaluate, "tokenizer.json is not the file that build/base.json records"),
    ],
)
def test_a_missing_input_is_one_error_and_nothing_is_written(tmp_path, missing, stage, message):
    run = finished_run()
    workspace = fresh_copy(tmp_path, run.workspace)
    before = sorted(workspace.root.rglob("*"))
    workspace.path(missing).unlink()
    with pytest.raises(InputError, match=message) as caught:
        stage(run.params, Machine(), workspace)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert sorted([*workspace.root.rglob("*"), workspace.path(missing)]) == before


def test_a_changed_base_is_refused(tmp_path):
    run = finished_run()
    workspace = fresh_copy(tmp_path, run.workspace)
    with (workspace.data / "tiny" / "model.safetensors").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\1" * 8)
    for stage in (baseline, evaluate):
        with pytest.raises(InputError, match=r"is not the file that build/base.json records"):
            stage(run.params, Machine(), workspace)
