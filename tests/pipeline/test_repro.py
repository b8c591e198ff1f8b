"""`dvc repro` runs the stages that a change affects, and no others."""

import resource

import pytest
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.pipeline

ALL = ["fetch", "preprocess", "baseline", "train", "evaluate", "export"]


def test_the_first_run_runs_every_stage_once(trained, ran):
    assert sorted(ran(trained.first_run)) == sorted(ALL)


def test_the_first_run_changes_nothing_but_reports_and_the_lock_in_git(trained):
    changed = trained.clone.git("show", "--stat=200", "--name-only", "--format=").split()
    assert "dvc.lock" in changed
    assert all(name == "dvc.lock" or name.startswith("reports/") for name in changed)
    trained.clone.dvc("status", "--quiet")


def test_a_second_repro_runs_nothing_and_is_quick(clone, ran):
    clone.dvc("repro")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = clone.dvc("repro")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert "up to date" in again.stdout
    assert not ran(again)
    assert seconds < 4, "about a second on an idle processor"
    assert not clone.git("status", "--porcelain")


def test_machine_settings_rerun_nothing(clone, ran):
    (clone.root / ".env").write_text("FALCON_JOB_TOKENS_PER_PACK=512\n")
    again = clone.dvc("repro", FALCON_JOB_DEVICE="cpu", FALCON_JOB_WORKERS="1", FALCON_JOB_TOKENS_PER_PACK="1024")
    assert not ran(again)


def test_another_answer_length_reruns_baseline_evaluate_and_export(clone, ran):
    clone.set_params(evaluate__max_new_tokens=5)
    assert sorted(ran(clone.dvc("repro"))) == ["baseline", "evaluate", "export"]


def test_another_learning_rate_reruns_train_evaluate_and_export(experiment, ran):
    assert ran(experiment.exp_run) == ["train", "evaluate", "export"]


def test_other_base_weights_at_the_same_path_rerun_what_depends_on_them(clone, ran):
    weights = clone.root / "data" / "falcon-tiny" / "model.safetensors"
    tensors = load_file(weights)
    name = max(tensors, key=lambda name: tensors[name].numel())
    save_file({**tensors, name: tensors[name] * 1.5}, weights, metadata={"format": "pt"})
    adapter = clone.read("build/adapter/adapter_model.safetensors")

    assert ran(clone.dvc("repro", "train")) == ["fetch", "preprocess", "train"]
    assert clone.read("build/adapter/adapter_model.safetensors") != adapter
    assert sorted(ran(clone.dvc("repro", "--dry"))) == ["baseline", "evaluate", "export"]


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("falcon_job/cli.py", []),
        ("falcon_job/machine.py", []),
        ("falcon_job/reporting/summary.py", []),
        ("falcon_job/sources/datasets.py", ["fetch"]),
        ("falcon_job/qa/metric.py", ["preprocess", "baseline", "evaluate", "export"]),
        ("falcon_job/training/steps.py", ["train"]),
        ("falcon_job/inference/replies.py", ["baseline", "evaluate", "export"]),
    ],
)
def test_an_edit_reruns_the_stages_that_list_its_room(clone, ran, file, stages):
    """And the stages after them if outputs change, which a dry run cannot know."""
    with (clone.root / file).open("a") as code:
        code.write("\nEDITED = True\n")
    assert sorted(ran(clone.dvc("repro", "--dry"))) == sorted(stages)


def test_an_accepted_edit_reruns_nothing(clone, ran):
    """As `make accept` does it."""
    with (clone.root / "falcon_job/qa/metric.py").open("a") as code:
        code.write("\n# a comment\n")
    assert ran(clone.dvc("repro", "--dry"))
    clone.dvc("commit", "--force")
    assert not ran(clone.dvc("repro", "--dry"))


def test_old_params_bring_the_old_result_back_without_training(trained, experiment, tmp_path, ran):
    clone = experiment.clone.copy(tmp_path)
    results = ("build/adapter/adapter_model.safetensors", "reports/history.csv", "build/predictions.json")
    assert clone.read(results[0]) != trained.clone.read(results[0])
    (clone.root / "params.yaml").write_bytes(trained.clone.read("params.yaml"))
    back = clone.dvc("repro", "evaluate")
    assert not ran(back)
    assert [name for name in results if clone.read(name) != trained.clone.read(name)] == []
