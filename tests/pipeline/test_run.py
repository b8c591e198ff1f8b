"""`falcon-job run`: one run per clone, signals, exit codes, resuming."""

import hashlib
import os
import shutil
import signal
import sys
import time

import psutil
import pytest
import torch

pytestmark = pytest.mark.pipeline

RESULTS = ("build/predictions.json", "build/forced.json", "build/na_prob.json", "build/samples.json")
LONG = 500
"""So many epochs that training outlasts every test."""


def start_training(clone):
    """Start a long run of training; return it and the process of its stage after the first step."""
    clone.set_params(train__epochs=LONG)
    run = clone.start("run", "train")
    clone.wait_for(lambda: "train: step 1/" in clone.output() or run.poll() is not None)
    assert run.poll() is None, clone.output()
    return run, clone.stage_process("train")


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("Error: ")]


def test_run_in_a_subfolder_pulls_missing_data_and_prints_the_scores(trained):
    said = trained.first_run.stdout
    assert (trained.clone.root / "data" / "train.json").is_file()
    assert "model data/falcon-tiny" in said
    assert "dev questions" in said
    assert "build/export" in said
    assert "No remote" not in trained.first_run.stderr


def test_run_of_one_stage_runs_what_it_needs_and_no_more(clone, ran):
    clone.set_params(train__learning_rate=0.003)
    done = clone.job("run", "train")
    assert ran(done) == ["train"]
    assert sorted(ran(clone.dvc("repro", "--dry"))) == ["evaluate", "export"]


def test_a_second_whole_run_runs_nothing_and_prints_the_scores(clone, ran):
    again = clone.job("run")
    assert not ran(again)
    assert "dev questions" in again.stdout


def test_equal_runs_in_two_places_give_equal_bytes(pristine_clone, trained):
    done = pristine_clone.job("run", "evaluate")
    assert "Running stage 'train'" in done.stdout
    files = ["reports/history.csv", "reports/threshold.csv", "reports/answerability.csv", *RESULTS]
    for folder in ("build/raw", "build/dataset", "build/adapter"):
        names = sorted(path.name for path in (trained.clone.root / folder).iterdir())
        assert names == sorted(path.name for path in (pristine_clone.root / folder).iterdir())
        files += [f"{folder}/{name}" for name in names]
    different = [file for file in files if pristine_clone.read(file) != trained.clone.read(file)]
    assert not different


def test_a_killed_training_resumes_and_ends_with_the_same_bytes(clone, trained):
    """The same as those of the uninterrupted run of the same params, the `trained` fixture."""
    shutil.rmtree(clone.root / ".dvc" / "cache" / "runs")
    (clone.root / "dvc.lock").unlink()
    names = ("build/adapter/adapter_model.safetensors", "build/adapter/adapter_config.json", "reports/history.csv")
    for name in names:
        (clone.root / name).unlink()

    run = clone.start("run", "train")
    clone.wait_for(lambda: list(clone.root.glob("scratch/checkpoints/*/checkpoint-*/trainer_state.json")))
    clone.stage_process("train").kill()
    assert run.wait(60) == 1
    assert not (clone.root / "build" / "adapter").exists()

    resumed = clone.job("run", "train")
    assert "train: resuming from" in resumed.stderr
    assert "step 1/" not in resumed.stderr
    assert [name for name in names if clone.read(name) != trained.clone.read(name)] == []
    assert not list((clone.root / "scratch" / "checkpoints").iterdir())


def test_nothing_else_starts_in_the_clone_while_a_run_trains(clone):
    run, stage = start_training(clone)

    second = clone.job("run", check=False)
    assert second.returncode == 1
    (error,) = errors(second.stderr)
    assert "is in use by another `falcon-job run`" in error

    direct = clone.job("train", check=False)
    assert direct.returncode == 1
    (error,) = errors(direct.stderr)
    assert "is in use by another `falcon-job train`" in error

    assert clone.dvc("repro", check=False).returncode == 255
    (clone.root / ".dvc" / "tmp" / "rwlock").unlink()
    unlocked = clone.dvc("repro", "train", check=False)
    assert unlocked.returncode == 255
    assert "is in use by another `falcon-job train`" in unlocked.stderr

    assert stage.is_running()
    run.terminate()
    assert run.wait(60) == 143


def test_a_run_works_after_all_processes_of_another_were_killed(clone, trained):
    params = trained.clone.read("params.yaml")
    run, _ = start_training(clone)
    for process in clone.processes():
        process.kill()
    run.wait(60)
    (clone.root / "params.yaml").write_bytes(params)
    clone.job("run", "train")


def test_a_stage_ends_with_its_killed_run_and_the_next_run_works(clone, trained):
    params = trained.clone.read("params.yaml")
    run, stage = start_training(clone)
    run.kill()
    (clone.root / "params.yaml").write_bytes(params)
    clone.job("run", "train")
    assert not stage.is_running()
    assert not clone.processes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_run_ends_the_stage_and_releases_all_locks(clone, trained, ran, number, code):
    params = trained.clone.read("params.yaml")
    run, stage = start_training(clone)
    run.send_signal(number)
    assert run.wait(60) == code
    assert not stage.is_running()
    assert not clone.processes()
    assert "Traceback" not in clone.output()

    (clone.root / "params.yaml").write_bytes(params)
    again = clone.job("run", "train")
    assert not ran(again), "DVC still has the old result"


def test_a_signal_between_two_stages_stops_the_run(clone):
    """Fetch runs and writes what it wrote before; export is the next stage that is out of date."""
    clone.set_params(dataset__train_sha256=hashlib.sha256(clone.read("data/train.json")).hexdigest())
    run = clone.start("run")
    clone.wait_for(lambda: clone.stage_process("fetch"))
    stage = clone.stage_process("fetch")
    clone.wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
    run.terminate()
    assert run.wait(60) == 143
    assert "Running stage 'export'" in clone.output(), "the signal came too late to be a test"
    assert "export: done" not in clone.output()
    assert not clone.processes()


def test_a_signal_before_the_first_stage_stops_the_run(clone):
    clone.set_params(train__epochs=LONG)
    run = clone.start("run")
    clone.wait_for(lambda: len(clone.processes()) > 1)
    run.terminate()
    assert run.wait(60) == 143
    assert not clone.processes()


def test_bad_data_gives_2_from_run_and_255_from_dvc(clone):
    (clone.root / "data" / "train.json").write_text('{"data": "none"}')
    failed = clone.job("run", check=False)
    assert failed.returncode == 2
    (error,) = errors(failed.stderr)
    assert "train.json" in error
    assert "Traceback" not in failed.stderr
    assert clone.dvc("repro", check=False).returncode == 255


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_a_machine_that_cannot_gives_3(clone):
    clone.set_params(train__learning_rate=0.003)
    failed = clone.job("run", "train", check=False, FALCON_JOB_DEVICE="cuda")
    assert failed.returncode == 3
    (error,) = errors(failed.stderr)
    assert "FALCON_JOB_DEVICE" in error


def test_a_network_that_fails_gives_1(clone):
    clone.set_params(dataset__dev="https://127.0.0.1:9/dev.json", dataset__dev_sha256="0" * 64)
    failed = clone.job("run", "fetch", check=False)
    assert failed.returncode == 1
    (error,) = errors(failed.stderr)
    assert "https://127.0.0.1:9/dev.json" in error
    assert "Traceback" not in failed.stderr


def test_data_that_cannot_be_pulled_gives_2_and_what_dvc_printed(clone):
    for folder in ("data", ".dvc/cache", "dvc-store"):
        shutil.rmtree(clone.root / folder)
    failed = clone.job("run", check=False)
    assert failed.returncode == 2
    (error,) = errors(failed.stderr)
    assert "`dvc pull data.dvc`" in error


def test_bad_settings_stop_a_run_before_anything_else(clone):
    (clone.root / "params.yaml").write_text("model: 1\n")
    shutil.rmtree(clone.root / "scratch")
    failed = clone.job("run", check=False)
    assert failed.returncode == 2
    assert len(errors(failed.stderr)) == 1
    assert not (clone.root / "scratch").exists()

    clone.git("checkout", "params.yaml")
    failed = clone.job("run", check=False, FALCON_JOB_DEVICE="abacus")
    assert failed.returncode == 2
    assert len(errors(failed.stderr)) == 1
    assert "FALCON_JOB_DEVICE" in failed.stderr
    assert not (clone.root / "scratch").exists()


def test_the_dvc_lock_of_a_killed_container_does_not_block_a_run(clone):
    lock = clone.root / ".dvc" / "tmp" / "rwlock"
    path = str(clone.root / "build" / "adapter")
    lock.write_text(f'{{"write": {{"{path}": {{"pid": {os.getpid()}, "cmd": "dvc repro"}}}}, "read": {{}}}}')
    before = psutil.Process().create_time() - 60
    os.utime(lock, (before, before))
    clone.set_params(train__learning_rate=0.003)
    assert clone.dvc("repro", "train", check=False).returncode == 255, "DVC by itself is blocked"
    os.utime(lock, (before, before))
    clone.job("run", "train")


def test_a_signal_to_a_stage_run_by_hand_stops_it(clone):
    clone.set_params(train__epochs=LONG)
    stage = clone.start("train")
    clone.wait_for(lambda: "train: step 1/" in clone.output())
    stage.terminate()
    assert stage.wait(60) == 143
    assert "Traceback" not in clone.output()


@pytest.mark.skipif(sys.platform != "linux", reason="counts on fork")
def test_a_signal_while_workers_load_data_ends_them_too(clone):
    clone.env = {**clone.env, "FALCON_JOB_WORKERS": "2"}
    run, stage = start_training(clone)
    workers = stage.children()
    assert len(workers) >= 2
    started = time.monotonic()
    run.terminate()
    assert run.wait(60) == 143
    assert time.monotonic() - started < 30
    assert not any(worker.is_running() for worker in workers)
    assert "python -m falcon_job train, exited with 143" in clone.output()
