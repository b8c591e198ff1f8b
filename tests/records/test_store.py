"""Passages on disk are those that were added, in order, and a large file is not held in memory."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.errors import JobError
from falcon_job.records import store
from falcon_job.records.dataset import read_passages
from falcon_job.records.passage import Answer, Passage, Question
from falcon_job.records.store import Selection, Spool

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
questions = st.builds(
    Question, text, text, st.lists(st.builds(Answer, text, st.none() | st.integers(0, 99))).map(tuple)
)
passages = st.builds(Passage, text, st.none() | text, st.lists(questions, min_size=1, max_size=3).map(tuple))


def distinct(content):
    """Passages as they are stored: of those with the same article and text only the first."""
    first = {(p.article, p.text) if p.text is not None else number: p for number, p in reversed([*enumerate(content)])}
    return list(first.values())[::-1]


def spooled(content):
    filled = Spool()
    for passage in content:
        filled.add(passage)
    return filled


@given(content=st.lists(passages, max_size=6).map(distinct))
def test_what_is_added_is_read_in_order_at_once_or_one_by_one(content):
    read = spooled(content)

    assert list(read) == [read[i] for i in range(len(read))] == content


@given(content=st.lists(passages, max_size=6).map(distinct), data=st.data())
def test_indices_and_slices_are_those_of_a_list(content, data):
    read = spooled(content)
    part = data.draw(st.slices(len(content)))

    assert list(read[part]) == content[part]
    assert [read[i] for i in range(-len(content), 0)] == content
    for index in (len(content), -len(content) - 1):
        with pytest.raises(IndexError):
            read[index]


@given(rows=st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("xyz")), max_size=12))
def test_questions_of_one_article_and_text_are_one_passage_where_it_first_stood(rows):
    merged = Spool()
    expected = {}
    for number, (article, context) in enumerate(rows):
        question = Question(str(number), "Q?", ())
        merged.add(Passage(article, context, (question,)))
        expected.setdefault((article, context), []).append(question)

    assert list(merged) == [Passage(*key, tuple(asked)) for key, asked in expected.items()]


def test_an_id_is_claimed_once_and_then_known_by_its_first_place():
    empty = Spool()

    assert empty.claim("q\ud800", "line 1") is None
    assert empty.claim("q", "line 2") is None
    assert empty.claim("q\ud800", "line 3") == "line 1"
    assert empty.claim("q\ud800", "line 4") == "line 1"


@given(content=st.lists(passages, min_size=1, max_size=6).map(distinct), data=st.data())
def test_a_selection_reads_the_passages_chosen(content, data):
    chosen = data.draw(st.lists(st.integers(0, len(content) - 1), unique=True))

    assert list(Selection(spooled(content), chosen)) == [content[i] for i in chosen]


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


def test_a_disk_without_room_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_TABLES", store._TABLES + "PRAGMA max_page_count = 10;")
    path = tmp_path / "train.jsonl"
    path.write_text(
        "".join(json.dumps({"question": f"{number}?", "answer": "long " * 99}) + "\n" for number in range(500)),
        encoding="utf-8",
    )

    with pytest.raises(
        JobError, match=r"finds no room .* \(database or disk is full\): make room, or set SQLITE_TMPDIR"
    ):
        read_passages(path)
