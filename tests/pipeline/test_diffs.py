"""How DVC compares two commits, in a clone without a DVC cache."""

import json

import pytest

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def bare_clone(experiment, tmp_path_factory):
    """A `git clone` of the two commits: no data, no cache, no build."""
    folder = tmp_path_factory.mktemp("bare")
    experiment.clone.git("clone", "--quiet", str(experiment.clone.root), str(folder / "clone"))
    clone = type(experiment.clone)(folder / "clone", experiment.clone.env)
    assert not (clone.root / ".dvc" / "cache").exists()
    assert not (clone.root / "build").exists()
    return clone


def test_metrics_diff_shows_how_training_changed(bare_clone, experiment):
    diff = json.loads(bare_clone.dvc("metrics", "diff", "HEAD~1", "HEAD", "--json").stdout)
    loss = diff["reports/train.json"]["loss"]
    new = json.loads(experiment.clone.read("reports/train.json"))
    old = json.loads(experiment.clone.git("show", "HEAD~1:reports/train.json"))
    assert loss == {"old": old["loss"], "new": new["loss"], "diff": pytest.approx(new["loss"] - old["loss"])}
    assert "reports/baseline.json" not in diff
    assert "reports/data.json" not in diff


def test_metrics_diff_prints_a_table_for_people(bare_clone):
    table = bare_clone.dvc("metrics", "diff", "HEAD~1", "HEAD", "--md").stdout
    assert any("train.json" in line and "validation_loss" in line for line in table.splitlines())


def test_metrics_show_holds_the_official_scores_of_both_models(bare_clone):
    shown = json.loads(bare_clone.dvc("metrics", "show", "--json").stdout)
    for report in ("reports/eval.json", "reports/baseline.json"):
        scores = shown[""]["data"][report]["data"]
        assert {"exact", "f1", "total", "has_ans_f1", "no_ans_f1", "always_abstain_f1"} <= set(scores)


def test_params_diff_names_the_one_key_that_changed(bare_clone):
    diff = json.loads(bare_clone.dvc("params", "diff", "HEAD~1", "HEAD", "--json").stdout)
    assert list(diff) == ["params.yaml"]
    assert list(diff["params.yaml"]) == ["train.learning_rate"]
    assert diff["params.yaml"]["train.learning_rate"]["new"] == 0.00001


def test_plots_diff_draws_both_commits(bare_clone):
    plots = json.loads(bare_clone.dvc("plots", "diff", "HEAD~1", "HEAD", "--json").stdout)["data"]
    reports = {f"reports/{name}.csv" for name in ("history", "threshold", "answerability")}
    assert set(plots) == {"loss", "threshold", *reports}
    for drawn in plots.values():
        assert {rev for each in drawn for rev in each["revisions"]} == {"HEAD~1", "HEAD"}
    history = bare_clone.read("reports/history.csv").splitlines()
    text = json.dumps(plots["loss"])
    assert "train_loss" in text
    assert "validation_loss" in text
    assert history[-1].split(b",")[2].decode()[:8] in text


def test_plots_diff_writes_a_page_that_git_ignores(bare_clone):
    bare_clone.dvc("plots", "diff", "HEAD~1", "HEAD")
    assert b"Loss" in bare_clone.read("dvc_plots/index.html")
    assert not bare_clone.git("status", "--porcelain")
