"""The image as production runs it: no network, a read-only root, no capabilities, a uid without a name."""

import json
import os
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from falcon_job.params import load_params

IMAGE = os.environ.get("FALCON_JOB_TEST_IMAGE", "")
pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.image,
    pytest.mark.skipif(not IMAGE, reason="FALCON_JOB_TEST_IMAGE names no image: `make image` builds one"),
]

ROOT = Path(__file__).parents[2]
ENGINE = os.environ.get("ENGINE") or shutil.which("docker") or shutil.which("podman") or "docker"
UID, GID = os.getuid() or 4321, os.getgid() or 4321
"""The user of the container, whom the image does not know."""
SEALED = (
    "--rm --network none --read-only --tmpfs /tmp:exec --cap-drop ALL --security-opt no-new-privileges "
    f"--security-opt label=disable --memory 6g --pids-limit 512 --user {UID}:{GID} --env OMP_NUM_THREADS=1"
).split()
if os.getuid() and "podman" in ENGINE:
    SEALED += ["--userns", "keep-id"]


@dataclass
class Box:
    """A clone that is mounted in a container."""

    root: Path

    def command(self, *command: str, name: str = "") -> list[str]:
        mount = ["--volume", f"{self.root}:/job", "--name", name or uuid.uuid4().hex]
        return [ENGINE, "run", *SEALED, *mount, IMAGE, *command]

    def call(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the container; without one, the default command of the image."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def read(self, relative: str) -> bytes:
        return (self.root / relative).read_bytes()


def given_to_caller(clone, folder: Path) -> Box:
    copy = clone.copy(folder)
    subprocess.run(["chown", "-R", f"{UID}:{GID}", str(copy.root)], check=True)
    return Box(copy.root)


@pytest.fixture(scope="module")
def trained_inside(tmp_path_factory, _pristine) -> Box:
    box = given_to_caller(_pristine, tmp_path_factory.mktemp("inside"))
    box.call("make", "train")
    box.call("sh", "-c", "git add . && git commit --quiet --message run")
    return box


@pytest.fixture
def box(tmp_path, trained_inside) -> Box:
    shutil.copytree(trained_inside.root, tmp_path / "clone", symlinks=True)
    subprocess.run(["chown", "-R", f"{UID}:{GID}", str(tmp_path / "clone")], check=True)
    return Box(tmp_path / "clone")


def set_params(box: Box, key: str, value: object) -> None:
    lines = box.read("params.yaml").decode().splitlines()
    changed = [f"  {key}: {value}" if line.strip().startswith(f"{key}:") else line for line in lines]
    assert changed != lines
    (box.root / "params.yaml").write_text("\n".join(changed) + "\n")


def wait_for_training(run: subprocess.Popen[bytes], output: Path) -> None:
    give_up = time.monotonic() + 120
    while b"train: step 1/" not in output.read_bytes():
        assert run.poll() is None, output.read_text()
        assert time.monotonic() < give_up, output.read_text()
        time.sleep(0.1)


def test_make_train_inside_leaves_the_bytes_it_leaves_outside(trained_inside, trained):
    files = ["build/predictions.json", "build/na_prob.json", "reports/history.csv", "reports/threshold.csv"]
    files += ["build/adapter/adapter_model.safetensors", "build/base.json"]
    assert not [file for file in files if trained_inside.read(file) != trained.clone.read(file)]
    inside, outside = (json.loads(each.read("reports/eval.json")) for each in (trained_inside, trained.clone))
    del inside["run"], outside["run"]
    assert inside == outside


def test_all_files_of_a_run_belong_to_the_caller(trained_inside):
    others = [path for path in trained_inside.root.rglob("*") if path.lstat().st_uid != UID]
    assert not others


def test_dvc_works_inside_for_a_caller_without_a_name(box):
    assert "up to date" in box.call("dvc", "status").stdout
    set_params(box, "learning_rate", 0.0001)
    again = box.call()
    assert "Running stage 'train'" in again.stdout
    assert "Running stage 'preprocess'" not in again.stdout
    assert "dev questions" in again.stdout
    difference = json.loads(box.call("dvc", "metrics", "diff", "--json").stdout)
    assert difference["reports/train.json"]["loss"]["diff"] != 0
    changed = json.loads(box.call("dvc", "params", "diff", "--json").stdout)["params.yaml"]
    assert {key: (values["old"], values["new"]) for key, values in changed.items()} == {
        "train.learning_rate": (load_params(ROOT / "params.yaml").train.learning_rate, 0.0001)
    }


def test_bad_params_give_2_before_anything_runs(box):
    set_params(box, "epochs", -1)
    done = box.call(check=False)
    assert done.returncode == 2
    assert "train.epochs" in done.stderr
    assert "Running stage" not in done.stdout


def test_stopping_the_container_ends_training_and_blocks_no_later_run(box, tmp_path):
    set_params(box, "epochs", 500)
    name = uuid.uuid4().hex
    with (tmp_path / "output").open("wb") as output:
        run = subprocess.Popen(box.command(name=name), stdout=output, stderr=subprocess.STDOUT)
    wait_for_training(run, tmp_path / "output")

    asked = time.monotonic()
    subprocess.run([ENGINE, "stop", "--time", "60", name], check=True, capture_output=True)

    assert run.wait(60) == 143
    assert time.monotonic() - asked < 30
    said = (tmp_path / "output").read_text()
    assert "python -m falcon_job train, exited with 143" in said
    assert "Traceback" not in said
    assert json.loads(box.read(".dvc/tmp/rwlock")) == {}
    set_params(box, "epochs", 2)
    assert "Running stage 'train'" in box.call("falcon-job", "run", "train").stdout


def test_a_requirements_lock_unlike_the_images_is_refused(box):
    with (box.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    for command in ((), ("make", "train")):
        done = box.call(*command, check=False)
        assert done.returncode == 2
        assert "make image" in done.stderr


def test_without_a_checkout_the_image_says_what_to_mount():
    done = subprocess.run([ENGINE, "run", *SEALED, IMAGE], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--volume CLONE:/job" in done.stderr


def test_an_experiment_runs_inside_without_an_identity_of_the_callers(box):
    done = box.call("dvc", "exp", "run", "--set-param", "train.learning_rate=0.00001", "train")
    assert "Ran experiment" in done.stdout


def test_doctor_finds_nothing_wrong_inside(box):
    report = json.loads(box.call("falcon-job", "doctor", "--json").stdout)
    assert report["ok"]
    assert {check["name"]: check["status"] for check in report["checks"]}["compiler"] == "ok"


def test_make_container_train_runs_the_job_in_the_image(box, tmp_path):
    env = os.environ | {"HF_HOME": str(tmp_path / "weights"), "CONTAINER_ARGS": "--network none"}
    command = ["make", "container-train", f"ENGINE={ENGINE}", f"IMAGE={IMAGE}"]
    done = subprocess.run(command, cwd=box.root, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Stage 'train' didn't change, skipping" in done.stdout
    assert "dev questions" in done.stdout


def test_a_signal_to_make_ends_the_container(box, tmp_path):
    set_params(box, "epochs", 500)
    env = os.environ | {"HF_HOME": str(tmp_path / "weights"), "CONTAINER_ARGS": "--network none"}
    command = ["make", "container-train", f"ENGINE={ENGINE}", f"IMAGE={IMAGE}"]
    with (tmp_path / "output").open("wb") as output:
        run = subprocess.Popen(command, cwd=box.root, env=env, stdout=output, stderr=subprocess.STDOUT)
    wait_for_training(run, tmp_path / "output")
    run.terminate()
    run.wait(60)
    assert "python -m falcon_job train, exited with 143" in (tmp_path / "output").read_text()


def test_container_sh_passes_variables_in_and_exit_code_and_files_out(tmp_path):
    env = os.environ | {"ENGINE": ENGINE, "IMAGE": IMAGE, "GPUS": "all", "HF_HOME": str(tmp_path / "weights")}
    env |= {"HF_TOKEN": "secret", "FALCON_JOB_WORKERS": "3", "CONTAINER_ARGS": "--network none"}
    script = 'echo "$HF_TOKEN $FALCON_JOB_WORKERS" > /hf/said; test -f /job/dvc.yaml && exit 7'

    done = subprocess.run(
        [ROOT / "tools" / "container.sh", "sh", "-c", script], env=env, capture_output=True, text=True
    )

    assert done.returncode == 7, done.stderr
    said = tmp_path / "weights" / "said"
    assert said.read_text().split() == ["secret", "3"]
    assert said.stat().st_uid == os.getuid()
