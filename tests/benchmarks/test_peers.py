"""The comparison with other trainers: the fixed attention, the leak check, and the clock."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import Trainer, TrainingArguments

from benchmarks import train_speed
from benchmarks.peers import task
from benchmarks.peers.mended import IMPLEMENTATION
from benchmarks.peers.task import Setting, packing_difference
from tests.tiny_models import VOCABULARY, falcon_7b_type, with_lora

LENGTHS = (5, 9, 7)


@pytest.fixture
def packed():
    """Return three sequences packed into one row the way TRL packs them, each with labels in its second half."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (1, sum(LENGTHS)), generator=draw)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    learned = torch.cat([torch.arange(length) >= length // 2 for length in LENGTHS])[None]
    return {"input_ids": ids, "position_ids": positions, "labels": torch.where(learned, ids, -100)}


def test_packed_sequences_leak_in_transformers_falcon_but_not_when_mended(packed):
    own, mended = (with_lora(falcon_7b_type(attn_implementation=name)) for name in ("sdpa", IMPLEMENTATION))

    assert packing_difference(own, packed, bf16=False) > 0.1
    assert packing_difference(mended, packed, bf16=False) < 1e-5


def test_mended_attention_gives_the_same_logits_as_transformers(packed):
    own, mended = (falcon_7b_type(attn_implementation=name).eval() for name in ("sdpa", IMPLEMENTATION))
    ids = packed["input_ids"].view(3, 7)
    mask = torch.arange(7) < torch.tensor([[7], [4], [6]])
    with torch.no_grad():
        difference = own(ids, attention_mask=mask).logits - mended(ids, attention_mask=mask).logits

    assert difference[mask].abs().max() < 1e-5


def test_one_run_compares_all_settings_and_reports_one_that_fails(tmp_path, monkeypatch):
    data = Path(__file__).parents[2] / "data"
    peer, failing = Setting("transformers", "padded", "mended", 32), Setting("litgpt", "packed", "own", 32)
    settings = [train_speed.OURS, train_speed.ORDINARY_PACKING, peer, failing]
    monkeypatch.setattr(train_speed, "all_settings", lambda *_: iter(settings))
    output = tmp_path / "results.json"
    folders = map(str, (data / "falcon-tiny", data, tmp_path / "work"))
    options = ("--limit", "64", "--epochs", "2", "--output", str(output))
    done = CliRunner().invoke(train_speed.main, ["demo", *folders, *options])

    assert done.exit_code == 0, done.output
    found = json.loads(output.read_text())
    ours, packed, padded, failed = found["results"]
    assert ours["questions_per_second"] > 0
    assert not ours["leaks"]
    assert not packed["leaks"]
    assert "f1" in padded
    assert "failed" in failed
    assert [row["against"] for row in found["compared"]] == ["perfect ordinary packing", "transformers"]
    for row in found["compared"]:
        assert row["f1_difference_low"] <= row["f1_difference"] <= row["f1_difference_high"]


class FakeClock:
    """A clock that moves only when a test moves it."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def hand(monkeypatch):
    hand = FakeClock()
    monkeypatch.setattr(task, "time", hand)
    return hand


def steps_taken(clock, hand, seconds_of_steps, steps_of_epoch):
    """Take steps until the clock stops training; return how many were taken."""
    clock.start()
    for number, seconds in enumerate(seconds_of_steps, start=1):
        hand.now += seconds
        if clock.step(number / steps_of_epoch):
            return number
    return len(seconds_of_steps)


def test_short_epochs_are_timed_whole(hand):
    clock = task.Clock(most_seconds=10)

    assert steps_taken(clock, hand, [5, 1, 1, 2, 2, 2, 1, 1, 1], steps_of_epoch=3) == 9
    assert clock.seconds == pytest.approx([7, 6, 3])


def test_long_epochs_are_cut_short_and_the_second_cut_ends_training(hand):
    clock = task.Clock(most_seconds=10)

    assert steps_taken(clock, hand, [8, 6] + [4] * 98, steps_of_epoch=100) == 5
    assert clock.seconds == pytest.approx([700, 400])


def test_a_step_longer_than_the_limit_is_finished(hand):
    clock = task.Clock(most_seconds=10)

    assert steps_taken(clock, hand, [30, 20, 20], steps_of_epoch=4) == 2
    assert clock.seconds == pytest.approx([120, 80])


def test_without_a_limit_no_epoch_is_cut_short(hand):
    clock = task.Clock()

    assert steps_taken(clock, hand, [1e6] * 4, steps_of_epoch=2) == 4
    assert clock.seconds == pytest.approx([2e6, 2e6])


def test_a_step_across_the_end_of_an_epoch_counts_in_proportion(hand):
    clock = task.Clock()

    steps_taken(clock, hand, [2] * 5, steps_of_epoch=2.5)
    assert clock.seconds == pytest.approx([5])


def test_an_epoch_of_transformers_trainer_may_end_in_a_smaller_step(hand, tmp_path):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            hand.now += 1
            return {"loss": (self.weight * x).sum()}

    clock = task.Clock(most_seconds=3.5)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = [{"x": torch.ones(1)} for _ in range(9)]  # 4.5 steps of two seconds each
    Trainer(Model(), arguments, train_dataset=rows, callbacks=[clock]).train()

    assert clock.seconds == pytest.approx([9, 9])
