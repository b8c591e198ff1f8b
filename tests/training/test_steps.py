import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.packing.pack import PackForm
from falcon_job.tokens.dataset import EncodedPassage, EncodedQuestion, Split, write_split
from falcon_job.training.steps import StepDataset, StepPlan

COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def questions_of(steps):
    return [[(part.index, i) for part in step for i in range(part.start, part.stop)] for step in steps]


@given(COUNTS, st.integers(1, 20), st.randoms())
def test_steps_hold_every_question_once_in_the_order_of_passages(counts, size, random):
    order = random.sample(range(len(counts)), len(counts))
    steps = questions_of(StepPlan(np.array(counts), size, order))

    assert [question for step in steps for question in step] == [(i, k) for i in order for k in range(counts[i])]


@given(COUNTS, st.integers(1, 20))
def test_every_step_but_the_last_has_the_same_number_of_questions(counts, size):
    sizes = [len(step) for step in questions_of(StepPlan(np.array(counts), size, range(len(counts))))]

    assert all(count == size for count in sizes[:-1])
    assert 1 <= sizes[-1] <= size


@pytest.fixture
def split(tmp_path):
    def passage(number):
        questions = [EncodedQuestion(f"{number}-{k}", "q", ["a"], [10 + k], [20 + k, 1]) for k in range(5)]
        return EncodedPassage(number, "article", "text", [number] * 6, questions)

    write_split(tmp_path / "train.arrow", [passage(number) for number in range(7)])
    return Split(tmp_path / "train.arrow")


def asked(dataset):
    return [
        sorted((tree.prefix_ids[0], branch.prompt_ids[0]) for tree in dataset.trees(i) for branch in tree.branches)
        for i in range(len(dataset))
    ]


def test_pack_size_changes_neither_steps_nor_their_questions(split):
    plans = [asked(StepDataset(split, 8, PackForm.dense(capacity), seed=3)) for capacity in (16, 64, 4096)]

    assert plans[0] == plans[1] == plans[2]


def test_each_epoch_has_its_own_order_and_the_seed_repeats_it(split):
    dataset, again = (
        StepDataset(split, 8, PackForm.dense(64), seed=3),
        StepDataset(split, 8, PackForm.dense(64), seed=3),
    )
    first = asked(dataset)
    dataset.set_epoch(1)
    again.set_epoch(1)

    assert asked(dataset) != first
    assert asked(dataset) == asked(again)
    assert asked(StepDataset(split, 8, PackForm.dense(64), seed=4)) != first


def test_without_a_seed_the_order_is_that_of_the_file(split):
    dataset = StepDataset(split, 5, PackForm.dense(64), seed=None)
    dataset.set_epoch(1)

    assert [step[0][0] for step in asked(dataset)] == list(range(7))


def test_a_step_counts_what_it_holds(split):
    step = StepDataset(split, 8, PackForm.dense(12), seed=None)[0]

    assert step["questions"] == 8
    assert step["supervised_tokens"] == 16
    assert step["logical_tokens"] == 8 * (6 + 3)
    assert all(pack["input_ids"].shape[1] <= 12 for pack in step["packs"])
