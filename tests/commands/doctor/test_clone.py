"""git, DVC and the settings of this machine."""

import shutil

from falcon_job.commands.doctor.finding import look_around


def test_a_clone_that_git_trusts_is_ok(clone):
    assert clone.finding("git")[0] == "ok"


def test_a_clone_of_another_user_is_noted_with_the_command_that_mends_it(clone):
    env = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}  # git's own switch to try this
    status, _, fix = clone.finding("git", **env)
    assert status == "note"
    assert fix == f"`git config --global --add safe.directory {clone.folder}`"
    assert clone.call(*fix.strip("`").split()).returncode == 0
    assert clone.finding("git", **env)[0] == "ok"


def test_without_git_only_the_commit_is_lost(clone, tmp_path):
    status, found, _ = clone.finding("git", PATH=str(tmp_path))
    assert status == "note"
    assert "cannot record its commit" in found


def test_files_outside_of_a_repository_are_a_problem(clone):
    shutil.rmtree(clone.folder / ".git")
    status, _, fix = clone.finding("git")
    assert status == "problem"
    assert "git clone" in fix
    assert clone.finding("dvc")[0] == "problem"


def test_dvc_names_its_version_and_cache(clone):
    status, found, _ = clone.finding("dvc")
    assert status == "ok"
    assert str(clone.folder / ".dvc" / "cache") in found


def test_a_cache_of_dvc_that_cannot_be_written_is_a_problem(clone):
    (clone.folder / ".dvc" / "cache").mkdir()
    (clone.folder / ".dvc" / "cache" / "files").write_text("a file where a folder belongs")
    status, found, _ = clone.finding("dvc")
    assert status == "problem"
    assert "cannot be written" in found


def test_a_broken_configuration_of_dvc_is_a_problem(clone):
    (clone.folder / ".dvc" / "config").write_text("[core]\nnonsense = true\n")
    status, found, fix = clone.finding("dvc")
    assert status == "problem"
    assert "nonsense" in found
    assert "git checkout .dvc" in fix


def test_settings_are_listed_and_a_bad_one_is_a_problem(clone):
    status, found, _ = clone.finding("settings", FALCON_JOB_DEVICE="cpu")
    assert status == "ok"
    assert "FALCON_JOB_DEVICE=cpu" in found
    (clone.folder / ".env").write_text("FALCON_JOB_DEVICE=tpu\n")
    status, found, _ = clone.finding("settings")
    assert status == "problem"
    assert "FALCON_JOB_DEVICE (got 'tpu')" in found


def test_all_problems_of_params_are_in_one_line(clone):
    params = clone.folder / "params.yaml"
    params.write_text(params.read_text().replace("learning_rate:", "learning_rat:"))
    status, found, _ = clone.finding("params")
    assert status == "problem"
    assert "params.yaml: 2 problems: " in found
    assert "train.learning_rat: unknown key, did you mean train.learning_rate?" in found
    assert "\n" not in found


def test_a_folder_inside_the_clone_is_in_the_clone(clone, monkeypatch):
    monkeypatch.chdir(clone.folder / "data")
    here = look_around()
    assert here.workspace.root == clone.folder
    assert here.params.model.source == "data/falcon-tiny"
