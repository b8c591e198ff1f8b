"""git, DVC, settings, params and weights. The Hub is never asked."""

import shutil
import socket

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_a_clone_of_another_user_is_noted_with_the_command_that_mends_it(clone):
    env = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}  # git's own switch to try this
    status, _, fix = clone.finding("git", **env)
    assert status == "note"
    assert fix == f"run `git config --global --add safe.directory {clone.folder}`"
    assert clone.call(*fix.removeprefix("run ").strip("`").split()).returncode == 0
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


def test_dvc_names_its_cache_and_a_broken_one_is_a_problem(clone):
    status, found, _ = clone.finding("dvc")
    assert status == "ok"
    assert str(clone.folder / ".dvc" / "cache") in found
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


def test_settings_are_listed_and_wrong_ones_are_a_problem(clone):
    status, found, _ = clone.finding("settings", FALCON_JOB_DEVICE="cpu")
    assert status == "ok"
    assert "FALCON_JOB_DEVICE=cpu" in found
    (clone.folder / ".env").write_text("FALCON_JOB_DEVICE=tpu\nFALCON_JOB_ATENTION=sdpa\n")
    status, found, _ = clone.finding("settings")
    assert status == "problem"
    assert "FALCON_JOB_DEVICE must be 'auto', 'cpu' or 'cuda', not 'tpu'" in found
    assert "did you mean FALCON_JOB_ATTENTION?" in found


def test_all_problems_of_params_are_in_one_line(clone):
    params = clone.folder / "params.yaml"
    params.write_text(params.read_text().replace("learning_rate:", "learning_rat:"))
    status, found, fix = clone.finding("params")
    assert status == "problem"
    assert "params.yaml has 2 problems; " in found
    assert "train.learning_rat is not a known key: did you mean train.learning_rate?" in found
    assert "\n" not in found
    assert fix


@pytest.mark.parametrize("content", ["model: {}\n", "a: b: c\n", "- 1\n", None])
def test_invalid_params_are_one_problem_and_leave_the_rest_to_be_checked(clone, content):
    (clone.folder / "params.yaml").unlink()
    if content:
        (clone.folder / "params.yaml").write_text(content)
    status, found, _ = clone.finding("params")
    assert status == "problem"
    assert "params.yaml" in found
    assert "\n" not in found
    assert clone.finding("weights")[0] == "note"


@pytest.fixture
def unasked():
    """The address of a Hub that must not be asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}"}
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.fixture
def snapshot(clone):
    """The folder of a model in the Hub cache, which params name."""
    clone.set_model(source="tiiuae/falcon-7b", revision=REVISION)
    hub = clone.folder.parent / "home/.cache/huggingface/hub"
    return shutil.copytree(
        clone.folder / "data" / "falcon-tiny", hub / "models--tiiuae--falcon-7b" / "snapshots" / REVISION
    )


def test_a_complete_folder_is_ok_and_a_damaged_one_a_problem(clone):
    folder = clone.folder / "data" / "falcon-tiny"
    status, found, _ = clone.finding("weights")
    assert status == "ok"
    assert str(folder) in found
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    status, found, fix = clone.finding("weights")
    assert status == "problem"
    assert str(weights) in found
    assert "copy it again" in fix


def test_a_folder_that_is_not_there_is_a_problem(clone):
    clone.set_model(source="data/elsewhere")
    status, found, fix = clone.finding("weights")
    assert status == "problem"
    assert str(clone.folder / "data" / "elsewhere") in found
    assert "model.revision" in fix


def test_bundled_data_that_is_not_unpacked_yet_is_noted(clone):
    shutil.rmtree(clone.folder / "data")
    assert clone.finding("weights")[0] == "problem"
    (clone.folder / "data.dvc").touch()
    status, _, fix = clone.finding("weights")
    assert status == "note"
    assert "falcon-job run" in fix
    clone.set_model(source="other/model")
    assert clone.finding("weights")[0] == "problem"


def test_a_model_in_the_cache_is_ok_without_a_network(clone, snapshot, unasked):
    for env in ({"HF_HUB_OFFLINE": "1"}, unasked):
        status, found, _ = clone.finding("weights", **env)
        assert status == "ok"
        assert str(snapshot) in found


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json"])
def test_an_incomplete_model_is_to_be_downloaded_unless_offline(clone, snapshot, unasked, lost):
    (snapshot / lost).unlink()
    status, found, fix = clone.finding("weights", **unasked)
    assert status == "note"
    assert "is not complete" in found
    assert "falcon-job fetch" in fix
    status, found, fix = clone.finding("weights", HF_HUB_OFFLINE="1")
    assert status == "problem"
    assert "HF_HUB_OFFLINE" in found
    assert "HF_HOME" in fix
