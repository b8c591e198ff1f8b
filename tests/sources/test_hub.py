"""Each case runs the fetch stage or the resolver in its own process: the variables are read at import."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save

from falcon_job.workspace import Workspace

ROOT = Path(__file__).parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_verysecrettoken"
WANTED = {
    "config.json": b'{"model_type": "falcon"}',
    "generation_config.json": b"{}",
    "model.safetensors": save({"w": np.arange(4096, dtype=np.float32)}),
    "special_tokens_map.json": b"{}\n",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"a": 1}',
}
UNWANTED = {
    ".gitattributes": b"",
    "README.md": b"# Falcon",
    "handler.py": b"raise SystemExit",
    "modeling_falcon.py": b"raise SystemExit",
    "tokenizer.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "original/config.json": b'{"other": 1}',
    "original/model.safetensors": b"other",
}
PROGRAM = """
import json, sys, time
from pathlib import Path
time.sleep = lambda seconds: None  # every retry, without the waiting
from falcon_job.errors import JobError
from falcon_job.machine import Machine
from falcon_job.params import load_params
from falcon_job.sources.base_model import locate
from falcon_job.stages.fetch import fetch
from falcon_job.workspace import Workspace
workspace = Workspace(Path(sys.argv[2]))
try:
    if sys.argv[1] == "fetch":
        fetch(load_params(workspace.params), Machine(), workspace)
    else:
        print(locate(workspace))
except JobError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@dataclass
class Job:
    """A clone whose params name the model of the loopback Hub, and the environment of its processes."""

    workspace: Workspace
    environment: dict[str, str]

    def run(self, action="fetch", **environment):
        command = [sys.executable, "-c", PROGRAM, action, str(self.workspace.root)]
        variables = {**self.environment, **environment}
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)
        assert TOKEN not in done.stdout + done.stderr
        assert done.returncode == 0, done.stderr
        assert "%|" not in done.stderr  # no progress bar where stderr is no terminal
        return done.stdout.strip()

    def error(self, kind, action="fetch", **environment):
        """Return the message of the error, after checking its class, one line and nothing half written."""
        name, message = json.loads(self.run(action, **environment))
        assert name == kind
        assert "\n" not in message
        if action == "fetch":
            assert not self.workspace.base.exists()
        assert list(self.cache.glob("**/*.incomplete")) == []
        return message

    @property
    def cache(self):
        return Path(self.environment["HF_HOME"]) / "hub"

    def configure(self, source="org/falcon", revision=REVISION):
        params = YAML(typ="safe").load(ROOT / "presets" / "demo.yaml")
        params["model"] = {**params["model"], "source": source, "revision": revision}
        YAML(typ="safe").dump(params, self.workspace.params)


@pytest.fixture
def job(hub, tmp_path):
    hub.files = {**WANTED, **UNWANTED}
    workspace = Workspace(tmp_path / "clone")
    workspace.data.mkdir(parents=True)
    for name in ("train.json", "dev.json"):
        (workspace.data / name).write_text("{}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    ours = {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "NO_PROXY": "127.0.0.1",
    }
    job = Job(workspace, {**kept, **ours})
    job.configure()
    return job


def snapshot(job):
    return job.cache / "models--org--falcon" / "snapshots" / REVISION


def test_only_allowed_files_are_downloaded_and_pinned(job):
    assert job.run() == ""
    assert sorted(path.name for path in snapshot(job).rglob("*")) == sorted(WANTED)
    base = json.loads(job.workspace.base.read_text())
    assert (base["source"], base["revision"]) == ("org/falcon", REVISION)
    assert list(base["files"]) == sorted(WANTED)


def test_token_is_sent_to_the_hub(job, hub):
    job.run()
    sent = [headers.get("authorization") for _, path, headers in hub.requests if "org/falcon" in path]
    assert set(sent) == {f"Bearer {TOKEN}"}


def test_second_use_works_offline(job, hub):
    job.run()
    first, asked = job.workspace.base.read_bytes(), len(hub.requests)
    assert job.run("locate", HF_HUB_OFFLINE="1") == str(snapshot(job))
    assert job.run("fetch", HF_HUB_OFFLINE="1") == ""
    assert job.workspace.base.read_bytes() == first
    assert len(hub.requests) == asked


def test_no_stage_asks_a_hub_whose_files_are_all_in_the_cache(job, refused):
    job.run()
    assert job.run("locate", HF_ENDPOINT=refused) == str(snapshot(job))


@pytest.mark.parametrize("trouble", ["GET /api/models", None])
def test_fetch_takes_a_complete_copy_where_the_hub_is_down(job, hub, refused, trouble):
    job.run()
    first = job.workspace.base.read_bytes()
    hub.stalled = trouble
    assert job.run("fetch", HF_ENDPOINT=hub.url if trouble else refused) == ""
    assert job.workspace.base.read_bytes() == first


def test_fetch_takes_a_complete_copy_where_the_hub_refuses(job, hub):
    job.run()
    first = job.workspace.base.read_bytes()
    hub.repo = "org/renamed"  # as a private model looks without a token
    assert job.run() == ""
    assert job.workspace.base.read_bytes() == first


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_an_incomplete_copy_does_not_replace_the_hub(job, name):
    job.run()
    job.workspace.base.unlink()
    (snapshot(job) / name).unlink()
    assert "HF_HUB_OFFLINE" in job.error("JobError", HF_HUB_OFFLINE="1")


def test_weights_are_downloaded_last(job, hub):
    job.run()
    downloads = [path for command, path, _ in hub.requests if command == "GET" and "/resolve/" in path]
    assert len(downloads) == len(WANTED)
    assert downloads[-1].endswith("/model.safetensors")


def test_locate_downloads_what_the_cache_lacks(job):
    job.run()
    missing = snapshot(job) / "tokenizer.json"
    missing.resolve().unlink()
    missing.unlink()
    assert job.run("locate") == str(snapshot(job))
    assert missing.read_bytes() == WANTED["tokenizer.json"]


def test_changed_cache_is_caught_and_the_advice_repairs_it(job):
    job.run()
    changed = (snapshot(job) / "model.safetensors").resolve()
    changed.write_bytes(b"changed")
    message = job.error("InputError", "locate")
    assert f"delete {changed} and run `dvc repro -f fetch`" in message
    changed.unlink()
    assert job.run("fetch") == ""
    assert job.run("locate") == str(snapshot(job))


def test_cold_cache_offline_is_a_job_error(job):
    assert "HF_HUB_OFFLINE" in job.error("JobError", HF_HUB_OFFLINE="1")


def test_unknown_repository_is_an_input_error(job):
    job.configure(source="org/none")
    assert "org/none" in job.error("InputError")


def test_unknown_revision_is_an_input_error(job):
    job.configure(revision="f" * 40)
    assert "model.revision" in job.error("InputError")


def test_unpinned_hub_id_is_an_input_error(job, hub):
    job.configure(revision=None)
    assert "needs model.revision" in job.error("InputError")
    assert hub.requests == []


def test_name_that_cannot_be_a_hub_id_is_an_input_error(job, hub):
    job.configure(source="org/bad--name")
    assert "owner/name" in job.error("InputError")
    assert hub.requests == []


@pytest.mark.parametrize("status", [401, 403])
def test_gated_model_says_to_accept_the_licence(job, hub, status):
    hub.denial = (status, "GatedRepo")
    message = job.error("InputError")
    assert f"{hub.url}/org/falcon" in message
    assert "accept the licence" in message
    assert "HF_TOKEN" in message


@pytest.mark.parametrize("status", [401, 403])
def test_refused_token_says_so(job, hub, status):
    hub.denial = (status, "")
    assert f"HTTP {status}" in job.error("InputError")


def test_hub_that_is_down_is_a_job_error(job, hub):
    hub.denial = (503, "")
    assert "HTTP 503" in job.error("JobError")


def test_refused_connection_is_a_job_error(job, refused):
    assert "check the network" in job.error("JobError", HF_ENDPOINT=refused)


def test_truncated_body_is_a_job_error(job, hub):
    hub.cut = "model.safetensors"
    assert "check the network" in job.error("JobError")


@pytest.mark.parametrize("where", ["GET /api/models", "GET /org/falcon/resolve"])
def test_stalled_hub_is_a_job_error(job, hub, where):
    hub.stalled = where
    assert "timed out" in job.error("JobError")


def test_damaged_weights_are_caught_and_the_advice_repairs_them(job, hub):
    hub.damaged = "model.safetensors"
    message = job.error("JobError")
    blob = (snapshot(job) / "model.safetensors").resolve()
    assert f"{blob} was damaged" in message
    hub.damaged = None
    blob.unlink()
    assert job.run() == ""


def test_pickled_weights_alone_are_refused_and_not_downloaded(job, hub):
    del hub.files["model.safetensors"]
    assert "pickled weights" in job.error("InputError")
    assert all("pytorch_model.bin" not in path for _, path, _ in hub.requests)


def test_server_that_is_not_a_hub_is_a_job_error(job, server):
    server.script.body = b"<html>"
    job.error("JobError", HF_ENDPOINT=server.url)
