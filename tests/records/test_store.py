"""Passages on disk are those that were added, in order, and a large file is not held in memory."""

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.errors import InputError, JobError
from falcon_job.records import store
from falcon_job.records.dataset import read_passages
from falcon_job.records.passage import Answer, Passage, Question
from falcon_job.records.store import PassageStore, Selection

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
answers = st.lists(st.builds(Answer, text, st.none() | st.integers(0, 99))).map(tuple)


@st.composite
def distinct_passages(draw, min_size=0):
    """Passages that differ in article or text, or are closed book, with questions of distinct ids."""
    heads = draw(st.lists(st.tuples(text, text), min_size=min_size, max_size=6, unique=True))
    ids = map(str, itertools.count())
    return [
        Passage(
            article,
            context if draw(st.booleans()) else None,
            tuple(Question(next(ids), draw(text), draw(answers)) for _ in range(draw(st.integers(1, 3)))),
        )
        for article, context in heads
    ]


def stored(passages):
    store = PassageStore()
    for passage in passages:
        assert store.add(passage) == []
    return store


@given(content=distinct_passages())
def test_what_is_added_is_read_in_order_at_once_or_one_by_one(content):
    read = stored(content)

    assert list(read) == [read[i] for i in range(len(read))] == content


@given(content=distinct_passages(), data=st.data())
def test_indices_and_slices_are_those_of_a_list(content, data):
    read = stored(content)
    part = data.draw(st.slices(len(content)))

    assert list(read[part]) == content[part]
    assert [read[i] for i in range(-len(content), 0)] == content
    for index in (len(content), -len(content) - 1):
        with pytest.raises(IndexError):
            read[index]


@given(rows=st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("xyz")), max_size=12))
def test_questions_of_one_article_and_text_share_a_passage(rows):
    store = PassageStore()
    expected = {}
    for number, (article, context) in enumerate(rows):
        question = Question(str(number), "Q?", ())
        store.add(Passage(article, context, (question,)))
        expected.setdefault((article, context), []).append(question)

    assert list(store) == [Passage(*key, tuple(asked)) for key, asked in expected.items()]


def test_closed_book_questions_each_stay_alone():
    pairs = [Passage("", None, (Question(str(number), "Q?", ()),)) for number in range(3)]

    assert list(stored(pairs)) == pairs


def test_a_question_whose_id_is_taken_comes_back_with_the_first_place():
    store = PassageStore()
    first, second, third = (Question("q", "Q?", (), f"line {number}") for number in (1, 2, 3))

    assert store.add(Passage("A", "x", (first, second))) == [(second, "line 1")]
    assert store.add(Passage("B", "y", (third,))) == [(third, "line 1")]


@given(content=distinct_passages(min_size=1), data=st.data())
def test_a_selection_reads_the_passages_chosen(content, data):
    chosen = data.draw(st.lists(st.integers(0, len(content) - 1), unique=True))

    assert list(Selection(stored(content), chosen)) == [content[i] for i in chosen]


def test_reading_a_file_takes_far_less_memory_than_it_has_bytes(tmp_path):
    path = tmp_path / "train.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(20_000):
            context = f"Passage {number // 5}. " + "It stood by the sea. " * 30
            row = {
                "id": str(number),
                "context": context,
                "question": "Where?",
                "answers": {"text": [], "answer_start": []},
            }
            file.write(json.dumps(row) + "\n")
    tracemalloc.start()
    try:
        count = sum(len(passage.questions) for passage in read_passages(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 20_000
    assert peak < path.stat().st_size / 5


def test_problems_beyond_those_shown_take_no_memory(tmp_path):
    path = tmp_path / "train.jsonl"
    wrong = json.dumps({"question": "", "answer": "x" * 200}) + "\n"
    path.write_text(wrong * 20_000, encoding="utf-8")
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="has 20000 problems"):
            read_passages(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < path.stat().st_size / 5


def test_a_disk_without_room_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_TABLES", store._TABLES + "PRAGMA max_page_count = 10;")
    path = tmp_path / "train.jsonl"
    path.write_text(
        "".join(json.dumps({"question": f"{number}?", "answer": "long " * 99}) + "\n" for number in range(500)),
        encoding="utf-8",
    )

    with pytest.raises(
        JobError, match=r"temporary files \(database or disk is full\): free disk space, or set SQLITE_TMPDIR"
    ):
        read_passages(path)
