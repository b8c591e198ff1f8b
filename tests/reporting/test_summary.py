import pytest

from falcon_job.files import write_json
from falcon_job.reporting.summary import print_summary
from falcon_job.workspace import Workspace
from tests.inference.finished_run import make_params


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    return Workspace(tmp_path)


@pytest.fixture
def printed(workspace, capsys):
    def run(**changes):
        print_summary(make_params(**changes), workspace)
        return capsys.readouterr().out

    return run


def row(text, name):
    """The cells of the line that begins with this name."""
    (line,) = [line for line in text.splitlines() if line.strip("│ ").split("│")[0].strip() == name]
    return [cell.strip() for cell in line.strip("│ ").split("│")[1:]]


def test_tuned_scores_stand_beside_untuned_ones(workspace, printed):
    numbers = {
        "exact": 12.345,
        "f1": 23.456,
        "has_ans_f1": 1.0,
        "no_ans_f1": 99.0,
        "always_abstain_f1": 33.3,
        "total": 72,
    }
    write_json(workspace.reports / "baseline.json", numbers)
    write_json(workspace.reports / "eval.json", {**numbers, "exact": 56.789, "f1": 67.891})
    text = printed(model={"precision": "bf16"})
    assert row(text, "exact") == ["12.35", "56.79"]
    assert row(text, "F1") == ["23.46", "67.89"]
    assert row(text, "F1, unanswerable") == ["99.00", "99.00"]
    assert "data/tiny (bf16) on 72 dev questions" in text


def test_what_is_missing_is_a_dash_or_left_out(workspace, printed):
    write_json(workspace.reports / "eval.json", {"exact": 50.0, "f1": 60.0, "total": 10})
    text = printed()
    assert row(text, "exact") == ["-", "50.00"]
    assert "unanswerable" not in text


def test_only_the_untuned_model_is_shown_before_training(workspace, printed):
    write_json(workspace.reports / "baseline.json", {"exact": 5.0, "f1": 6.0, "total": 10})
    text = printed()
    assert row(text, "F1") == ["6.00", "-"]
    assert "data/tiny (fp32) on 10 dev questions" in text


def test_a_clone_without_results_prints_no_scores(printed):
    text = printed()
    assert "data/tiny (fp32), not scored yet" in text
    assert "percent" not in text


def test_places_are_named_once_they_exist(workspace, printed):
    assert "build/export" not in printed()
    workspace.export.mkdir(parents=True)
    write_json(workspace.build / "samples.json", {})
    text = printed()
    assert "build/export" in text
    assert "build/samples.json" in text
    assert "build/adapter" not in text


def test_seconds_are_listed_in_the_order_of_the_stages(workspace, printed):
    for stage, seconds in [("train", 61.26), ("fetch", 0.5)]:
        write_json(workspace.scratch / "times" / f"{stage}.json", {"seconds": seconds})
    assert "fetch 0.5, train 61.3" in printed()


def test_no_path_of_the_machine_is_printed(workspace, printed):
    workspace.export.mkdir(parents=True)
    assert str(workspace.root) not in printed()
