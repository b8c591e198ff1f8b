"""The way into the container, with engines that say how they were called."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "container.sh"
ME = f"--user {os.getuid()}:{os.getgid()}"


@pytest.fixture
def call(tmp_path):
    """Call the script with an engine of that name; return the arguments of its `run`, one a line."""

    def program(name: str, code: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)

    def call(
        engine: str, *, version: str = "", rootless: bool = False, gpu: bool = True, uid: int | None = None, **env: str
    ) -> str:
        program(
            engine,
            f"""case $1 in
            --version) echo "{version or engine} version 1";;
            info) echo "{"[name=seccomp name=rootless]" if rootless else "[name=seccomp]"}";;
            run) shift; printf '%s\\n' "$@";;
            esac""",
        )
        program("nvidia-smi", "exit 0" if gpu else "exit 9")
        if uid is not None:
            program("id", f"echo {uid}")
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "GPUS": "all", **env}
        done = subprocess.run(
            [SCRIPT, "make", "train"], env={"ENGINE": engine, "IMAGE": "image", **env}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.replace("\n", " ")

    return call


@pytest.mark.parametrize(
    ("engine", "gpus", "said"),
    [
        ("docker", "all", "--gpus all "),
        ("docker", "0,2", '--gpus "device=0,2" '),
        ("podman", "all", "--device nvidia.com/gpu=all "),
        ("podman", "0,2", "--device nvidia.com/gpu=0 --device nvidia.com/gpu=2 "),
    ],
)
def test_gpus_are_given_in_the_words_of_the_engine(call, engine, gpus, said):
    assert said in call(engine, GPUS=gpus)


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize("machine", [{"gpu": False}, {"GPUS": "none"}])
def test_without_gpus_none_is_asked_for(call, engine, machine):
    said = call(engine, **machine)
    assert "--gpus" not in said
    assert "--device" not in said


def test_files_are_the_callers_under_every_kind_of_engine(call):
    assert ME in call("docker")
    assert "--user 0:0" in call("docker", rootless=True, uid=1000)
    assert "--userns keep-id --user 1000:1000" in call("podman", uid=1000)
    assert "--userns" not in call("podman", uid=0)


def test_a_docker_that_is_podman_is_treated_as_such(call):
    assert "--device nvidia.com/gpu=all" in call("docker", version="podman")


def test_tokens_and_settings_are_passed_by_name_without_their_values(call):
    said = call("docker", HF_TOKEN="secret", FALCON_JOB_DEVICE="cpu", UNKNOWN="else")
    assert "--env HF_TOKEN " in said
    assert "--env FALCON_JOB_DEVICE " in said
    assert "secret" not in said
    assert "UNKNOWN" not in said


def test_the_clone_and_the_callers_weights_are_mounted_and_the_command_comes_last(call, tmp_path):
    root = SCRIPT.parents[1]
    assert f"--volume {root}:/job --volume {tmp_path}/.cache/huggingface:/hf image make train " in call("docker")
    assert f"--volume {tmp_path}/w:/hf -v /shared:/shared image make train " in call(
        "docker", HF_HOME=str(tmp_path / "w"), CONTAINER_ARGS="-v /shared:/shared"
    )
    assert (tmp_path / "w").is_dir()
