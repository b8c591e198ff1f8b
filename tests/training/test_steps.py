import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.packing import Packer
from falcon_job.tokens.dataset import EncodedPassage, EncodedQuestion, Split, write_split
from falcon_job.training.steps import StepDataset, StepPlan, TreePart

COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def test_the_example_of_a_plan():
    plan = StepPlan(np.array([3, 2, 4]), 5, [2, 0, 1])

    assert list(plan) == [
        [TreePart(2, 0, 4), TreePart(0, 0, 1)],
        [TreePart(0, 1, 3), TreePart(1, 0, 2)],
    ]


def branches_of(steps):
    return [[(part.index, i) for part in step for i in range(part.start, part.stop)] for step in steps]


@given(COUNTS, st.integers(1, 20), st.randoms())
def test_steps_hold_every_branch_once_in_the_order_of_trees(counts, size, random):
    order = random.sample(range(len(counts)), len(counts))
    steps = branches_of(StepPlan(np.array(counts), size, order))

    assert [branch for step in steps for branch in step] == [(i, k) for i in order for k in range(counts[i])]


@given(COUNTS, st.integers(1, 20))
def test_every_step_but_the_last_has_the_same_number_of_branches(counts, size):
    sizes = [len(step) for step in branches_of(StepPlan(np.array(counts), size, range(len(counts))))]

    assert all(count == size for count in sizes[:-1])
    assert 1 <= sizes[-1] <= size


@pytest.fixture
def split(tmp_path):
    def passage(number):
        questions = [EncodedQuestion(f"{number}-{k}", "q", ["a"], [10 + k], [20 + k, 1]) for k in range(5)]
        return EncodedPassage(number, "article", "text", [number] * 6, questions)

    write_split(tmp_path / "train.arrow", [passage(number) for number in range(7)])
    return Split(tmp_path / "train.arrow")


def held(dataset):
    return [
        sorted((tree.prefix_ids[0], branch.prompt_ids[0]) for tree in dataset.trees(i) for branch in tree.branches)
        for i in range(len(dataset))
    ]


def test_the_length_of_packs_does_not_change_the_steps(split):
    plans = [held(StepDataset(split, 8, Packer.dense(length), seed=3)) for length in (16, 64, 4096)]

    assert plans[0] == plans[1] == plans[2]


def test_each_epoch_has_its_own_order_and_the_seed_repeats_it(split):
    dataset, again = (
        StepDataset(split, 8, Packer.dense(64), seed=3),
        StepDataset(split, 8, Packer.dense(64), seed=3),
    )
    first = held(dataset)
    dataset.set_epoch(1)
    again.set_epoch(1)

    assert held(dataset) != first
    assert held(dataset) == held(again)
    assert held(StepDataset(split, 8, Packer.dense(64), seed=4)) != first


def test_without_a_seed_the_order_is_that_of_the_file(split):
    dataset = StepDataset(split, 5, Packer.dense(64), seed=None)
    dataset.set_epoch(1)

    assert [step[0][0] for step in held(dataset)] == list(range(7))


def test_a_step_counts_what_it_holds(split):
    step = StepDataset(split, 8, Packer.dense(12), seed=None)[0]

    assert step["branches"] == 8
    assert step["completion_tokens"] == 16
    assert step["logical_tokens"] == 8 * (6 + 3)
    assert all(len(pack) <= 12 for pack in step["packs"])
