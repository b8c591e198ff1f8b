"""tools/container.sh, with fake engines that print how they were called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "container.sh"


@pytest.fixture
def call(tmp_path):
    """Return a function that calls the script with a fake engine and returns the arguments of the engine's `run`."""

    def program(name: str, code: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)

    def call(
        engine: str, *, version: str = "", rootless: bool = False, gpu: bool = True, uid: int = 1000, **env: str
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
        program("id", f'[ "$1" = -G ] && echo "{uid} 5000" || echo {uid}')
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
def test_gpus_are_requested_with_the_options_of_the_engine(call, engine, gpus, said):
    assert said in call(engine, GPUS=gpus)


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize("machine", [{"gpu": False}, {"GPUS": "none"}, {"gpu": False, "GPUS": "none"}])
def test_no_gpu_is_requested_without_gpus(call, engine, machine):
    said = call(engine, **machine)
    assert "--gpus" not in said
    assert "--device" not in said


def test_the_caller_owns_the_files_with_every_kind_of_engine(call):
    assert "--user 1000:1000 --group-add 1000 --group-add 5000 " in call("docker")
    assert "--user 0:0 " in call("docker", rootless=True)
    assert "--userns keep-id --user 1000:1000 " in call("podman")


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_call_by_root_runs_as_the_owner_of_the_checkout(call, engine):
    owner = SCRIPT.parents[1].stat()
    said = call(engine, uid=0)
    assert f"--user {owner.st_uid}:{owner.st_gid} " in said
    assert "--userns" not in said
    assert "--group-add" not in said


def test_a_docker_command_that_is_podman_gets_podmans_options(call):
    assert "--device nvidia.com/gpu=all" in call("docker", version="podman")


def test_variables_are_passed_on_by_name_without_their_values(call):
    said = call("docker", HF_TOKEN="secret", FALCON_JOB_DEVICE="cpu", UNKNOWN="else")
    assert "--env HF_TOKEN " in said
    assert "--env FALCON_JOB_DEVICE " in said
    assert "secret" not in said
    assert "UNKNOWN" not in said


def test_clone_and_weights_are_mounted_and_the_command_comes_last(call, tmp_path):
    job = f"--mount type=bind,source={SCRIPT.parents[1]},target=/job"
    weights = f"--mount type=bind,source={tmp_path}"
    assert f"{job} {weights}/.cache/huggingface,target=/hf image make train " in call("docker")
    assert f"{job} {weights}/w,target=/hf -v /shared:/shared image make train " in call(
        "docker", HF_HOME=str(tmp_path / "w"), CONTAINER_ARGS="-v /shared:/shared"
    )
    assert (tmp_path / "w").is_dir()


def test_a_relative_hf_home_is_mounted_as_a_folder_not_as_a_volume(call):
    assert f"source={SCRIPT.parents[1]}/tests,target=/hf" in call("docker", HF_HOME="tests")


def refused(folder, **env):
    """Return the one line with which the script refuses to run."""
    done = subprocess.run(
        [folder / "tools" / "container.sh", "true"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "IMAGE": "image", "GPUS": "all", **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.fixture
def clone(tmp_path):
    """Return a folder that holds only the script."""
    folder = tmp_path / "clone"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(SCRIPT, folder / "tools")
    return folder


def test_a_machine_without_the_engine_is_refused(clone):
    assert "install Docker or podman" in refused(clone, ENGINE="no-such-engine")


def test_gpus_that_the_machine_does_not_have_are_refused(clone):
    assert "GPUS=0, but nvidia-smi finds no GPU" in refused(clone, ENGINE="true", GPUS="0")


def test_a_git_worktree_is_refused(clone):
    (clone / ".git").write_text("gitdir: elsewhere")
    assert "use a clone" in refused(clone, ENGINE="true")


def test_a_missing_image_is_built_first(tmp_path):
    (tmp_path / "tools").mkdir()
    shutil.copy(SCRIPT, tmp_path / "tools")
    (tmp_path / "Makefile").write_text("image:\n\t@echo making $(IMAGE) by $(ENGINE)\n")
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\ncase "$1 $2" in "image inspect") exit 1;; run*) echo runs;; esac\n')
    engine.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ENGINE": str(engine), "IMAGE": "image", "GPUS": "none"}
    done = subprocess.run([tmp_path / "tools" / "container.sh"], env=env, capture_output=True, text=True)
    assert done.stderr.splitlines() == [f"making image by {engine}"]
    assert done.stdout == "runs\n"


@pytest.mark.parametrize(("visible", "gpus"), [(None, "all"), ("", "none"), ("1,3", "1,3")])
def test_make_uses_the_gpus_that_cuda_visible_devices_lists(visible, gpus):
    env = {"PATH": os.environ["PATH"]} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    command = ["make", "--dry-run", "container-train", "ENGINE=docker"]
    said = subprocess.run(command, cwd=SCRIPT.parents[1], env=env, capture_output=True, text=True, check=True).stdout
    assert f'GPUS="{gpus}"' in said
