"""Weights: here and whole, still to be downloaded, or out of reach. The Hub is never asked."""

import shutil
import socket

import pytest

from falcon_job.commands.doctor.weights import guess_size

REVISION = "0123456789abcdef0123456789abcdef01234567"
OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def unasked():
    """The address of a Hub that must not be asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}"}
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.fixture
def hub(clone):
    """A clone whose params name a model of the Hub, and the folder of its snapshot in the cache."""
    clone.set_model(source="tiiuae/falcon-7b", revision=REVISION)
    snapshot = clone.folder / ".." / "home/.cache/huggingface/hub/models--tiiuae--falcon-7b/snapshots" / REVISION
    shutil.copytree(clone.folder / "data" / "falcon-tiny", snapshot)
    return clone, snapshot


def test_a_whole_folder_is_ok(clone):
    status, found, _ = clone.finding("weights")
    assert status == "ok"
    assert str(clone.folder / "data" / "falcon-tiny") in found


def test_a_folder_that_is_not_there_is_a_problem(clone):
    clone.set_model(source="data/elsewhere")
    status, found, fix = clone.finding("weights")
    assert status == "problem"
    assert str(clone.folder / "data" / "elsewhere") in found
    assert "model.source" in fix


def test_a_folder_without_weights_is_a_problem(clone):
    (clone.folder / "data" / "falcon-tiny" / "model.safetensors").unlink()
    status, found, _ = clone.finding("weights")
    assert status == "problem"
    assert "safetensors" in found


def test_weights_cut_short_are_a_problem(clone):
    weights = clone.folder / "data" / "falcon-tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert clone.finding("weights")[0] == "problem"


def test_bundled_data_that_is_not_unpacked_yet_is_noted(clone):
    shutil.rmtree(clone.folder / "data")
    assert clone.finding("weights")[0] == "problem"
    (clone.folder / "data.dvc").touch()
    status, _, fix = clone.finding("weights")
    assert status == "note"
    assert "falcon-job run" in fix
    clone.set_model(source="other/model")
    assert clone.finding("weights")[0] == "problem"


def test_a_model_in_the_cache_is_ok_without_a_network(hub, unasked):
    clone, snapshot = hub
    for env in (OFFLINE, unasked):
        status, found, _ = clone.finding("weights", **env)
        assert status == "ok"
        assert str(snapshot.resolve()) in found


def test_a_model_that_is_not_whole_in_the_cache_will_be_downloaded(hub, unasked):
    clone, snapshot = hub
    (snapshot / "model.safetensors").unlink()
    status, found, fix = clone.finding("weights", **unasked)
    assert status == "note"
    assert "downloads it, about 14.0 GB" in found
    assert "falcon-job fetch" in fix
    shutil.rmtree(snapshot)
    assert clone.finding("weights", **unasked)[0] == "note"


def test_a_model_that_is_not_in_the_cache_is_a_problem_offline(hub):
    clone, snapshot = hub
    shutil.rmtree(snapshot)
    status, found, fix = clone.finding("weights", **OFFLINE)
    assert status == "problem"
    assert "HF_HUB_OFFLINE" in found
    assert "HF_HOME" in fix


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("tiiuae/falcon-7b", 14e9),
        ("tiiuae/falcon-40b-instruct", 80e9),
        ("HuggingFaceTB/SmolLM2-135M", 270e6),
        ("tiiuae/Falcon3-1.5B-Base", 3e9),
        ("org/model-8bit", 0),
        ("gpt2", 0),
    ],
)
def test_the_size_is_guessed_from_the_name(source, size):
    assert guess_size(source) == size
