from transformers import TrainerState

from falcon_job.training import callbacks
from falcon_job.training.callbacks import ProgressLine
from falcon_job.training.speed import Speed


def test_what_was_counted_since_is_the_difference():
    speed = Speed()
    speed.add(2, 30, 20, 5)
    before = Speed(2, 30, 20, 5)
    speed.add(3, 40, 25, 6)

    assert speed.since(before) == Speed(3, 40, 25, 6)


def test_speed_and_time_left_are_those_since_the_last_line(monkeypatch):
    clock = iter([100.0, 102.0, 102.0, 106.0, 106.0])
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(callbacks, "peak_memory", lambda: 5.24e9)
    speed = Speed()
    line = ProgressLine(speed)
    line.on_train_begin(None, TrainerState(global_step=0, max_steps=100), None)

    speed.add(20, 999, 4000, 1)
    assert line.speed_since_last(TrainerState(global_step=10, max_steps=100)) == (
        "10 questions/s, 2,000 tokens/s, 5.2 GB, 0:00:18 left"
    )
    speed.add(4000, 999, 80000, 1)
    assert line.speed_since_last(TrainerState(global_step=50, max_steps=100)) == (
        "1,000 questions/s, 20,000 tokens/s, 5.2 GB, 0:00:05 left"
    )


def test_the_time_of_a_validation_does_not_count(monkeypatch):
    clock = iter([0.0, 50.0, 52.0, 52.0])
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(clock))
    speed = Speed()
    line = ProgressLine(speed)
    line.on_train_begin(None, TrainerState(global_step=0, max_steps=4), None)
    line.on_log(None, TrainerState(global_step=0, max_steps=4), None, {"eval_loss": 1.0})

    speed.add(20, 0, 40, 0)
    assert line.speed_since_last(TrainerState(global_step=2, max_steps=4)).startswith("10 questions/s, 20 tokens/s, ")
