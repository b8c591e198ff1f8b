import hashlib
import json
import os

import pytest

from falcon_job.errors import InputError, JobError
from falcon_job.params import DatasetParams
from falcon_job.sources.datasets import fetch_datasets
from falcon_job.workspace import Workspace

TRAIN, DEV = b'{"data": "train"}\r\n', b'{"data": "dev"}\n'


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "clone")
    workspace.data.mkdir(parents=True)
    (workspace.data / "train.json").write_bytes(TRAIN)
    (workspace.data / "dev.jsonl").write_bytes(DEV)
    return workspace


def dataset(**changes):
    inside = {"train": "data/train.json", "dev": "data/dev.jsonl", "train_sha256": None, "dev_sha256": None}
    return DatasetParams(**{**inside, **changes})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def error_of(kind, workspace, **changes):
    """Return the message of the error, after checking its class, one line and nothing half written."""
    with pytest.raises(JobError) as caught:
        fetch_datasets(dataset(**changes), workspace)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert not workspace.raw.exists()
    assert not workspace.build.is_dir() or names(workspace.build) == []
    return str(caught.value)


def test_bytes_and_suffixes_are_kept(workspace):
    fetch_datasets(dataset(), workspace)
    assert names(workspace.raw) == ["dev.jsonl", "manifest.json", "train.json"]
    assert (workspace.raw / "train.json").read_bytes() == TRAIN
    assert (workspace.raw / "dev.jsonl").read_bytes() == DEV


def test_manifest_names_source_hash_and_size(workspace):
    fetch_datasets(dataset(), workspace)
    assert json.loads((workspace.raw / "manifest.json").read_text()) == {
        "train": {"source": "data/train.json", "sha256": sha256(TRAIN), "bytes": len(TRAIN)},
        "dev": {"source": "data/dev.jsonl", "sha256": sha256(DEV), "bytes": len(DEV)},
    }


def test_manifest_is_the_same_in_another_clone(workspace, tmp_path):
    other = Workspace(tmp_path / "elsewhere")
    other.root.mkdir()
    (other.data).symlink_to(workspace.data)
    manifests = []
    for each in (workspace, other):
        fetch_datasets(dataset(), each)
        manifests.append((each.raw / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]


def test_second_fetch_leaves_no_file_of_the_first(workspace):
    fetch_datasets(dataset(), workspace)
    fetch_datasets(dataset(train="data/dev.jsonl"), workspace)
    assert names(workspace.raw) == ["dev.jsonl", "manifest.json", "train.jsonl"]


def test_failed_fetch_keeps_the_one_before(workspace):
    fetch_datasets(dataset(), workspace)
    with pytest.raises(InputError):
        fetch_datasets(dataset(dev="data/none.json"), workspace)
    assert names(workspace.raw) == ["dev.jsonl", "manifest.json", "train.json"]
    assert names(workspace.build) == ["raw"]


def test_data_that_dvc_links_into_its_cache_needs_no_sha256(workspace, tmp_path):
    cached = tmp_path / "cache" / "ab12"
    cached.parent.mkdir()
    (workspace.data / "train.json").rename(cached)
    (workspace.data / "train.json").symlink_to(cached)
    fetch_datasets(dataset(), workspace)
    assert (workspace.raw / "train.json").read_bytes() == TRAIN
    assert not (workspace.raw / "train.json").is_symlink()


def test_missing_file_is_named_with_what_to_do(workspace):
    message = error_of(InputError, workspace, dev="data/none.json")
    assert message.startswith("dataset.dev: ")
    assert str(workspace.data / "none.json") in message
    assert "params.yaml" in message


def test_folder_is_not_a_dataset(workspace):
    (workspace.data / "folder.json").mkdir()
    error_of(InputError, workspace, train="data/folder.json")


@pytest.mark.parametrize("relative", ["outside.json", "data/../outside.json", "../outside.json"])
def test_file_outside_data_needs_a_sha256_and_the_error_prints_it(workspace, relative):
    workspace.path(relative).write_bytes(TRAIN)
    message = error_of(InputError, workspace, train=relative)
    assert f"set dataset.train_sha256 to {sha256(TRAIN)}" in message
    fetch_datasets(dataset(train=relative, train_sha256=sha256(TRAIN)), workspace)


def test_absolute_path_is_taken_with_its_sha256(workspace, tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(TRAIN)
    fetch_datasets(dataset(train=str(path), train_sha256=sha256(TRAIN)), workspace)
    assert (workspace.raw / "train.csv").read_bytes() == TRAIN


def test_wrong_checksum_of_a_file_prints_both(workspace):
    message = error_of(InputError, workspace, dev_sha256="0" * 64)
    assert message.startswith("dataset.dev: data/dev.jsonl")
    assert sha256(DEV) in message
    assert "0" * 64 in message


def test_name_without_suffix_is_refused(workspace):
    (workspace.data / "train").write_bytes(TRAIN)
    assert "suffix" in error_of(InputError, workspace, train="data/train")


def test_url_is_downloaded_with_the_suffix_of_its_path(workspace, server):
    server.script.body = TRAIN
    url = f"{server.url}/files/train-v2.0.json?download=true#top"
    fetch_datasets(dataset(train=url, train_sha256=sha256(TRAIN)), workspace)
    assert (workspace.raw / "train.json").read_bytes() == TRAIN
    assert names(workspace.downloads) == [sha256(TRAIN)]
    assert json.loads((workspace.raw / "manifest.json").read_text())["train"]["source"] == url


def test_url_is_not_downloaded_twice(workspace, server):
    server.script.body = TRAIN
    for _ in range(2):
        fetch_datasets(dataset(train=f"{server.url}/x.json", train_sha256=sha256(TRAIN)), workspace)
    assert len(server.requests) == 1


@pytest.mark.usefixtures("quick")
def test_failed_download_writes_nothing(workspace, refused):
    error_of(JobError, workspace, train=f"{refused}/x.json", train_sha256=sha256(TRAIN))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_unreadable_file_is_a_job_error(workspace):
    (workspace.data / "train.json").chmod(0)
    assert "train.json" in error_of(JobError, workspace)


def test_build_that_cannot_be_written_is_a_job_error(workspace):
    workspace.build.write_text("a file where the folder should be")
    with pytest.raises(JobError, match="build"):
        fetch_datasets(dataset(), workspace)
