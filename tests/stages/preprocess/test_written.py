"""The tokens, settings and report that the preprocess stage writes."""

import json
import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from falcon_job.qa.prompt import TEMPLATES
from tests.made_tokenizers import TINY_FALCON
from tests.stages.preprocess.job import SPLITS, all_questions, flat, pairs, squad, written


@pytest.mark.parametrize("template", TEMPLATES)
def test_tokens_are_those_of_the_whole_prompt_of_each_record(job, template):
    job.run(template)
    tokenizer, prompt = AutoTokenizer.from_pretrained(TINY_FALCON), TEMPLATES[template]
    records = all_questions(squad("train", 12, 3, 4)) | all_questions(squad("dev", 2, 2, 3))
    seen = 0
    for row in (row for name in SPLITS for row in job.split(name)):
        for question in row.questions:
            title, context, record = records[question.id]
            answers = [answer["text"] for answer in record["answers"]]
            assert (row.article, row.context, question.question) == (title, context, record["question"])
            assert question.answers == answers
            text = prompt.shared_text(context) + prompt.question_text(record["question"], closed_book=False)
            text += prompt.answer_text(answers[0] if answers else None)
            ids = row.prefix_ids + question.prompt_ids + question.answer_ids
            assert ids == [*tokenizer.encode(text), tokenizer.eos_token_id]
            seen += 1
    assert seen == len(records) == 12 * 12 + 12


def test_equal_runs_give_equal_bytes(job):
    job.run(limit=60, max_tokens=64)
    first = written(job)
    assert set(first) == {"train.arrow", "validation.arrow", "dev.arrow", "settings.json", "data.json"}
    job.run(limit=60, max_tokens=64)
    assert written(job) == first
    job.run(limit=60, max_tokens=64, seed=1)
    assert written(job)["train.arrow"] != first["train.arrow"]


def test_no_path_of_the_machine_is_written(job):
    job.run()
    assert not any(str(job.workspace.root).encode() in content for content in written(job).values())


def test_the_report_holds_numbers_only(job):
    job.run()
    text = (job.workspace.reports / "data.json").read_text()

    def leaves(content):
        return [leaf for part in content.values() for leaf in leaves(part)] if isinstance(content, dict) else [content]

    assert all(type(leaf) in (int, float) for leaf in leaves(json.loads(text)))


def test_settings_hold_what_later_stages_need(job):
    job.run(max_tokens=200)
    settings = json.loads((job.workspace.dataset / "settings.json").read_text())
    longest = max(len(question.answer_ids) for row in job.split("train") for question in row.questions)
    assert settings == {"max_tokens": 200, "answer_tokens": longest, "closed_book": False}


def count_anew(rows: list) -> dict:
    """Tokens as sequences and as trees, counted one by one."""
    lengths = [len(row.prefix_ids + q.prompt_ids + q.answer_ids) for row in rows for q in row.questions]
    packed = 0
    for row in rows:
        packed += len(row.prefix_ids)
        for question in row.questions:
            packed += len(question.prompt_ids) + len(question.answer_ids)
    return {
        "median": sorted(lengths)[len(lengths) // 2],
        "longest": max(lengths),
        "separate": sum(lengths),
        "packed": packed,
    }


@pytest.mark.parametrize("max_tokens", [384, 80, 64])
def test_the_report_counts_what_became_of_every_record(job, max_tokens):
    document = squad("train", 12, 3, 4)
    document["data"][0]["paragraphs"][0]["qas"][0]["question"] = "Which word? " * 200
    job.raw("train", ".json", document)
    report = job.run(max_tokens=max_tokens)
    train, dev = all_questions(document), all_questions(squad("dev", 2, 2, 3))
    kept = {name: set(job.ids(name)) for name in SPLITS}
    assert not kept["train"] & kept["validation"]
    for name, records in (("train", train), ("validation", train), ("dev", dev)):
        rows, counts = job.split(name), report[name]
        unanswerable = {id_ for id_ in kept[name] if not records[id_][2]["answers"]}
        per_passage = [row.passage for row in rows]
        assert counts["kept"] == len(kept[name])
        assert counts["unanswerable"] == len(unanswerable)
        assert counts["windows"] == len(rows)
        assert counts["questions"] == counts["kept"] + sum(counts["dropped"].values())
        assert counts["passages"] >= len(set(per_passage))
        assert counts["tokens"] == count_anew(rows)
        assert counts["tokens"]["longest"] <= max_tokens
        whole = sum(row.context in {context for _, context, _ in records.values()} for row in rows)
        assert (counts["windowed"] == 0) == (whole == len(rows)) == (max_tokens == 384)
    assert report["train"]["questions"] + report["validation"]["questions"] == len(train)
    assert report["train"]["articles"] + report["validation"]["articles"] == 12
    assert report["train"]["passages"] + report["validation"]["passages"] == 36
    assert report["dev"]["kept"] == report["dev"]["questions"] == len(dev)
    dropped = report["train"]["dropped"]["question_too_long"] + report["validation"]["dropped"]["question_too_long"]
    assert dropped == 1
    assert (report["left_out_by_limit"], report["overlaps"]) == (0, 0)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_flat_rows_give_the_same_bytes_as_squad(job, suffix):
    job.run()
    expected = written(job)
    for name, document in (("train", squad("train", 12, 3, 4)), ("dev", squad("dev", 2, 2, 3))):
        job.raw(name, suffix, flat(document))
    job.run()
    assert written(job) == expected


def test_squad_v1_has_no_unanswerable_question(job):
    job.raw("train", ".json", squad("train", 12, 3, 4, version=1))
    job.raw("dev", ".json", squad("dev", 2, 2, 3, version=1))
    report = job.run()
    assert [report[name]["unanswerable"] for name in SPLITS] == [0, 0, 0]
    assert report["train"]["kept"] + report["validation"]["kept"] == 144


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_closed_book_pairs_are_split_by_question(job, suffix, template):
    job.raw("train", suffix, pairs("train", 40))
    job.raw("dev", suffix, pairs("dev", 5))
    report = job.run(template)
    assert [report[name]["kept"] for name in SPLITS] == [36, 4, 5]
    assert json.loads((job.workspace.dataset / "settings.json").read_text())["closed_book"] is True
    tokenizer, prompt = AutoTokenizer.from_pretrained(TINY_FALCON), TEMPLATES[template]
    for row in (row for name in SPLITS for row in job.split(name)):
        (question,) = row.questions
        assert row.context is None
        assert row.prefix_ids == []
        text = prompt.question_text(question.question, closed_book=True) + prompt.answer_text(question.answers[0])
        assert question.prompt_ids + question.answer_ids == [*tokenizer.encode(text), tokenizer.eos_token_id]


def test_real_squad_is_kept_whole(job):
    folder = os.environ.get("FALCON_JOB_SQUAD")
    if not folder:
        pytest.skip("FALCON_JOB_SQUAD names no folder with SQuAD's train.json and dev.json")
    documents = {
        name: json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8")) for name in ("train", "dev")
    }
    for name, document in documents.items():
        job.raw(name, ".json", document)
    report = job.run(max_tokens=512)
    records = {name: all_questions(document) for name, document in documents.items()}
    assert (len(records["train"]), len(records["dev"])) == (3459, 1090)
    parts = [report["train"], report["validation"]]
    dropped = sum(sum(part["dropped"].values()) for part in parts)
    assert sum(part["kept"] for part in parts) + dropped == 3459
    assert dropped < 10
    assert sum(part["passages"] for part in parts) == 350
    assert report["dev"]["kept"] == 1090
    assert report["dev"]["unanswerable"] == 566
    assert max(part["tokens"]["longest"] for part in (*parts, report["dev"])) <= 512
    for row in job.split("train"):
        for question in row.questions:
            assert row.context in records["train"][question.id][1]
            assert not question.answers or question.answers[0] in row.context
