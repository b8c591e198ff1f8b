"""The splits of the demo dataset share no names, a third of the questions are unanswerable, and guessing scores low."""

import json
import re
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from falcon_job.params import load_params
from falcon_job.records.comparison import find_overlaps
from falcon_job.records.dataset import read_passages
from falcon_job.records.splits import split_validation
from tests.made_tokenizers import TINY_FALCON
from tests.tools.demo.test_prose import texts
from tools.demo.dataset import write_demo_dataset
from tools.demo.kinds import kinds
from tools.demo.pretraining_text import documents
from tools.demo.report import f1_of, guesses, table
from tools.demo.world import GIVEN_ENDS, GIVEN_STARTS, PLACE_ENDS, STARTS, SURNAME_ENDS, share_of, words

ROOT = Path(__file__).parents[3]
PARTS = ((GIVEN_STARTS, GIVEN_ENDS), (STARTS, SURNAME_ENDS), (STARTS, PLACE_ENDS))
WRITTEN = {word for kind in kinds() for text in texts(kind) for word in re.findall(r"\w+", text)}
INVENTED = {word for parts in PARTS for word in words(*parts)} - WRITTEN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder)
    return folder


@pytest.fixture(scope="module", params=["train", "dev"])
def split(request, folder):
    return read_passages(folder / f"{request.param}.json")


def names_in(text):
    return {word for word in re.findall(r"[A-Z][a-z]+", text) if word in INVENTED}


def whole_names(passage):
    """Places and full names, because a word can be one person's surname and another person's given name."""
    text = " ".join([passage.text, *(question.text for question in passage.questions)])
    runs = (run.split() for run in re.findall(r"[A-Z][a-z]+(?: [A-Z][a-z]+)*", text))
    return {" ".join(word for word in run if word in INVENTED) for run in runs if INVENTED & set(run)}


def test_every_run_writes_the_same_bytes(folder, tmp_path):
    write_demo_dataset(tmp_path)
    for name in ("train.json", "dev.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_there_are_enough_passages_of_readable_length(folder):
    for name, least in (("train", 300), ("dev", 60)):
        passages = read_passages(folder / f"{name}.json")
        assert len(passages) >= least
        assert min(len(passage.text.split()) for passage in passages) >= 80
        assert all(5 <= len(passage.questions) <= 10 for passage in passages)


def test_a_third_of_the_questions_are_unanswerable(split):
    answered = [bool(question.answers) for passage in split for question in passage.questions]
    assert abs(answered.count(False) / len(answered) - 1 / 3) < 0.01


def test_the_splits_and_the_pretraining_text_share_no_names(folder):
    for name in ("train", "dev"):
        text = json.dumps(json.loads((folder / f"{name}.json").read_text()))
        found = names_in(text)
        assert len(found) > 300
        assert {share_of(word) for word in found} == {name}
    pretrained = names_in("\n".join(islice(documents(0), 300)))
    assert {share_of(word) for word in pretrained} == {"pretraining"}
    assert find_overlaps(*(read_passages(folder / f"{name}.json") for name in ("train", "dev"))) == []


def test_training_and_validation_share_no_names(folder):
    """With the params of the demo."""
    params = load_params(ROOT / "presets" / "demo.yaml").preprocess
    parts = split_validation(read_passages(folder / "train.json"), params.validation_fraction, params.seed)
    train, validation = ({name for passage in part for name in whole_names(passage)} for part in parts)
    assert len(validation) > 200
    assert not train & validation


def test_guessing_scores_low(split):
    scores = {name: f1_of(guess, split) for name, guess in guesses(split).items()}
    assert scores.pop("always abstaining") < 34
    assert len(scores) == 5
    assert max(scores.values()) < 5


def test_a_correct_guess_scores_100(split):
    """Shows that the test above can fail."""
    passage = next(passage for passage in split if passage.questions[0].answers)
    answer = passage.questions[0].answers[0].text
    only = replace(passage, questions=passage.questions[:1])
    assert f1_of(lambda text: answer, [only]) == 100


def test_the_table_in_the_documentation_is_current(folder):
    shutil.copytree(TINY_FALCON, folder / "falcon-tiny", dirs_exist_ok=True)
    assert table(folder) in (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
