import hashlib
import os
import pty
import subprocess
import sys
import termios
import time

import pytest
from huggingface_hub import constants

from falcon_job.errors import InputError, JobError
from falcon_job.sources.download import download

BODY = bytes(range(256)) * 400
SHA256 = hashlib.sha256(BODY).hexdigest()

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def url(server):
    server.script.body = BODY
    return f"{server.url}/train.json"


def ranges(server):
    return [headers.get("Range") for _, _, headers in server.requests]


def error_of(kind, url, folder, sha256=SHA256):
    """Return the message of the error, after checking its class, that it is one line and names the URL."""
    with pytest.raises(JobError) as caught:
        download(url, sha256, folder)
    message = str(caught.value)
    assert type(caught.value) is kind
    assert message.startswith(url)
    assert "\n" not in message
    assert not (folder / sha256).exists()
    return message


def test_file_arrives_under_its_sha256_and_leaves_no_partial(server, url, tmp_path):
    path = download(url, SHA256, tmp_path)
    assert path.read_bytes() == BODY
    assert list(tmp_path.iterdir()) == [tmp_path / SHA256]


def test_no_token_is_sent_to_the_server_of_a_dataset(server, url, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download(url, SHA256, tmp_path)
    assert all("authorization" not in {name.lower() for name in headers} for _, _, headers in server.requests)


def test_complete_download_is_reused_without_network(server, url, tmp_path):
    download(url, SHA256, tmp_path)
    assert download(url, SHA256, tmp_path).read_bytes() == BODY
    assert len(server.requests) == 1


def test_damaged_complete_download_is_fetched_again(url, tmp_path):
    (tmp_path / SHA256).write_bytes(BODY[1:])
    assert download(url, SHA256, tmp_path).read_bytes() == BODY


def test_partial_file_of_a_killed_run_is_resumed_by_range(server, url, tmp_path):
    (tmp_path / f"{SHA256}.part").write_bytes(BODY[:1000])
    assert download(url, SHA256, tmp_path).read_bytes() == BODY
    assert ranges(server) == ["bytes=1000-"]


def test_download_that_is_killed_goes_on_where_it_was(server, tmp_path):
    body = BODY * 110  # above one chunk of 10 MiB
    digest, chunk = hashlib.sha256(body).hexdigest(), constants.DOWNLOAD_CHUNK_SIZE
    server.script.body, server.script.held = body, chunk + 1000
    url, part = f"{server.url}/x.json", tmp_path / f"{digest}.part"
    with subprocess.Popen(command(url, tmp_path, digest)) as process:
        while not (part.exists() and part.stat().st_size >= chunk):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    server.script.held = None
    assert download(url, digest, tmp_path).read_bytes() == body
    assert ranges(server) == [None, f"bytes={chunk}-"]


def test_whole_partial_file_needs_no_network(server, url, tmp_path):
    (tmp_path / f"{SHA256}.part").write_bytes(BODY)
    assert download(url, SHA256, tmp_path).read_bytes() == BODY
    assert server.requests == []


def test_server_that_ignores_range_is_read_from_the_start(server, url, tmp_path):
    server.script.ranges = False
    (tmp_path / f"{SHA256}.part").write_bytes(BODY[:1000])
    assert download(url, SHA256, tmp_path).read_bytes() == BODY


def test_connection_cut_in_the_body_is_resumed(server, url, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.script.cut = [50_000]
    assert download(url, SHA256, tmp_path).read_bytes() == BODY
    assert ranges(server)[0] is None
    assert ranges(server)[1].startswith("bytes=")


def test_body_cut_at_every_try_keeps_the_partial(server, url, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.script.cut = [50_000] + [0] * 20
    assert "run again" in error_of(JobError, url, tmp_path)
    assert 0 < (tmp_path / f"{SHA256}.part").stat().st_size < len(BODY)


def test_wrong_checksum_leaves_nothing_behind(url, tmp_path):
    message = error_of(InputError, url, tmp_path, "0" * 64)
    assert SHA256 in message
    assert "params.yaml" in message
    assert list(tmp_path.iterdir()) == []


def test_partial_longer_than_the_file_is_removed(url, tmp_path):
    (tmp_path / f"{SHA256}.part").write_bytes(BODY + b"more")
    error_of(InputError, url, tmp_path)
    assert download(url, SHA256, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (401, InputError, "download it by hand"),
        (403, InputError, "download it by hand"),
        (404, InputError, "correct the URL in params.yaml"),
        (503, JobError, "run again later"),
    ],
)
def test_refusal_says_its_status_and_what_to_do(server, url, tmp_path, status, kind, advice):
    server.script.status = status
    message = error_of(kind, url, tmp_path)
    assert f"HTTP {status}" in message
    assert advice in message


def test_stalled_server_is_a_job_error(server, url, tmp_path):
    server.script.stalled = True
    assert "timed out" in error_of(JobError, url, tmp_path)


def test_refused_connection_is_a_job_error(refused, tmp_path):
    assert "check the network" in error_of(JobError, f"{refused}/train.json", tmp_path)


def test_offline_mode_says_that_it_is_set(url, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in error_of(JobError, url, tmp_path)


@pytest.mark.parametrize("url", ["http://", "http://host:port/x.json"])
def test_malformed_url_is_an_input_error(url, tmp_path):
    assert "correct it in params.yaml" in error_of(InputError, url, tmp_path)


def test_unwritable_folder_is_a_job_error(url, tmp_path):
    (tmp_path / "file").write_text("")
    assert "the disk" in error_of(JobError, url, tmp_path / "file")


PROGRAM = "import sys, pathlib; from falcon_job.sources.download import download; \
download(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]))"


def command(url, folder, sha256=SHA256):
    return [sys.executable, "-c", PROGRAM, url, sha256, str(folder)]


def test_progress_is_silent_when_stderr_is_no_terminal(url, tmp_path):
    done = subprocess.run(command(url, tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_progress_is_shown_on_a_terminal(url, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    done = subprocess.run(command(url, tmp_path), stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    assert done.returncode == 0
    assert b"100%" in os.read(ours, 65536)
    os.close(ours)
