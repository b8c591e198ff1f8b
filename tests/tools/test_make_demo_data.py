import json
import re
from pathlib import Path

import pytest

from tools.make_demo_data import World, make_demo_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo_data(folder)
    return folder


def read(folder: Path, split: str) -> dict:
    return json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))


def passages(folder: Path, split: str) -> list[dict]:
    return [passage for article in read(folder, split)["data"] for passage in article["paragraphs"]]


def questions(folder: Path, split: str) -> list[dict]:
    return [question for passage in passages(folder, split) for question in passage["qas"]]


def test_every_run_writes_the_same_bytes(folder, tmp_path):
    make_demo_data(tmp_path)
    for name in ("train.json", "dev.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_files_end_in_a_newline_and_hold_ascii_only(folder):
    for name in ("train.json", "dev.json"):
        content = (folder / name).read_bytes()
        assert content.isascii()
        assert content.endswith(b"}\n")
        assert b"\r" not in content


@pytest.mark.parametrize(("split", "articles", "count"), [("train", 12, 48), ("dev", 3, 12)])
def test_there_are_enough_articles_and_passages(folder, split, articles, count):
    content = read(folder, split)
    assert content["version"] == "v2.0"
    assert len(content["data"]) >= articles
    assert len({article["title"] for article in content["data"]}) == len(content["data"])
    assert len(passages(folder, split)) == count


@pytest.mark.parametrize("split", ["train", "dev"])
def test_passages_are_of_readable_length_with_five_to_seven_questions(folder, split):
    for passage in passages(folder, split):
        assert 60 <= len(passage["context"].split()) <= 110
        assert 5 <= len(passage["qas"]) <= 7
        assert not re.search(r"[\[\]{}|\0]", passage["context"]), "a blank was left unfilled"


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_third_of_the_questions_is_unanswerable(folder, split):
    asked = questions(folder, split)
    assert sum(question["is_impossible"] for question in asked) * 3 == len(asked)
    assert all(question["is_impossible"] == (not question["answers"]) for question in asked)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_answers_stand_where_the_file_says(folder, split):
    for passage in passages(folder, split):
        for question in passage["qas"]:
            for answer in question["answers"]:
                start = answer["answer_start"]
                assert passage["context"][start : start + len(answer["text"])] == answer["text"]


def test_no_question_is_asked_twice_of_a_passage(folder):
    for passage in passages(folder, "train") + passages(folder, "dev"):
        assert len({question["question"] for question in passage["qas"]}) == len(passage["qas"])


def test_ids_are_unique_over_both_splits(folder):
    ids = [question["id"] for split in ("train", "dev") for question in questions(folder, split)]
    assert len(set(ids)) == len(ids)


def test_train_names_no_invented_name_of_dev(folder):
    words = {
        split: set(re.findall(r"\w+", (folder / f"{split}.json").read_text(encoding="utf-8")))
        for split in ("train", "dev")
    }
    world = World(seed=0)
    invented = {*world.given, *world.surnames, *world.places}
    assert len(words["dev"] & invented) > 40
    assert not words["dev"] & words["train"] & invented


def test_facts_are_phrased_in_several_ways(folder):
    asked = [question["question"] for question in questions(folder, "train")]
    founders = {re.sub(r"[A-Z]\w+", "X", question) for question in asked if "found" in question}
    assert len(founders) >= 3


@pytest.mark.parametrize(
    ("template", "pattern"),
    [
        ("no blank", "no blank"),
        ("in [1800-1809].", r"in 180\d\."),
        ("[oak|pine] and [oak|pine]", r"(oak|pine) and (oak|pine)"),
        ("[person]", r"[A-Z]\w+ [A-Z]\w+"),
        ("Mount [place]", r"Mount [A-Z]\w+"),
        ("[an open hand]", "an open hand"),
    ],
)
def test_blanks_are_filled(template, pattern):
    assert re.fullmatch(pattern, World(seed=3).fill(template))
