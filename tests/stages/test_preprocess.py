"""The preprocess stage, from fetched files and a pinned tokenizer to tokens and their report."""

import csv
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file
from transformers import AutoTokenizer

from falcon_job.errors import InputError
from falcon_job.machine import Machine
from falcon_job.params import Params, validate
from falcon_job.qa.prompt import TEMPLATES
from falcon_job.sources.base_model import pin
from falcon_job.stages.preprocess import preprocess
from falcon_job.tokens.dataset import Split
from falcon_job.workspace import Workspace
from tests.made_tokenizers import TINY_FALCON, saved

ROOT = Path(__file__).parents[2]
WORDS = ("harbour", "tide", "gull", "captain", "rope", "1873", "4.5", "caf\u00e9")
SPLITS = ("train", "validation", "dev")


@dataclass
class Job:
    """A clone with a base model, of which a test writes the fetched files."""

    workspace: Workspace

    def model(self, source: Path) -> None:
        """Pin the tokenizer in a folder as that of the base model."""
        folder = self.workspace.data / "model"
        shutil.copytree(source, folder, dirs_exist_ok=True)
        if not (folder / "config.json").exists():
            (folder / "config.json").write_text("{}")
        save_file({"w": np.zeros(1, dtype=np.float32)}, folder / "model.safetensors")
        pin(self.params().model, self.workspace).write(self.workspace.base)

    def params(self, template: str = "squad-v2", **preprocess) -> Params:
        content = YAML(typ="safe").load(ROOT / "presets" / "demo.yaml")
        content["model"] = {**content["model"], "source": "data/model", "revision": None}
        content["prompt"] = {"template": template}
        content["preprocess"] = {"max_tokens": 384, "validation_fraction": 0.1, "limit": None, "seed": 0, **preprocess}
        return validate(content, "params.yaml")

    def raw(self, split: str, suffix: str, content) -> None:
        """Write a fetched file; `content` is a SQuAD document or a list of rows."""
        self.workspace.raw.mkdir(parents=True, exist_ok=True)
        for old in self.workspace.raw.glob(f"{split}.*"):
            old.unlink()
        path = self.workspace.raw / f"{split}{suffix}"
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(content), path)
        elif suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(content[0]))
                writer.writeheader()
                writer.writerows(content)
        elif suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_text(json.dumps(content), encoding="utf-8")

    def run(self, template: str = "squad-v2", **settings) -> dict:
        preprocess(self.params(template, **settings), Machine(), self.workspace)
        return json.loads((self.workspace.reports / "data.json").read_text())

    def split(self, name: str) -> list:
        split = Split(self.workspace.dataset / f"{name}.arrow")
        return [split[i] for i in range(len(split))]

    def ids(self, name: str) -> list[str]:
        return [question.id for row in self.split(name) for question in row.questions]

    def fails(self, **settings) -> str:
        with pytest.raises(InputError) as caught:
            self.run(**settings)
        assert caught.value.exit_code == 2
        left = [path.name for path in self.workspace.build.iterdir()]
        assert sorted(left) == ["base.json", "raw"]
        assert not (self.workspace.reports / "data.json").exists()
        return str(caught.value)


@pytest.fixture
def job(tmp_path):
    job = Job(Workspace(tmp_path))
    job.model(TINY_FALCON)
    job.raw("train", ".json", squad("train", articles=12, passages=3, questions=4))
    job.raw("dev", ".json", squad("dev", articles=2, passages=2, questions=3))
    return job


def squad(name: str, articles: int, passages: int, questions: int, words: int = 20, version: int = 2) -> dict:
    """Invented articles; each third question of version 2 is unanswerable."""
    data = []
    for a in range(articles):
        paragraphs = []
        for p in range(passages):
            text = " ".join(WORDS[(a * 31 + p * 7 + w * (p + 3)) % len(WORDS)] + str(a * 10 + p) for w in range(words))
            qas = []
            for q in range(questions):
                start = text.index(" ", len(text) * q // questions) + 1 if q else 0
                answer = {"text": text[start:].split()[0], "answer_start": start}
                asked = {"id": f"{name}-{a}-{p}-{q}", "question": f"Which word is number {q}?"}
                if version == 1:
                    qas.append({**asked, "answers": [answer]})
                else:
                    impossible = q % 3 == 2
                    qas.append({**asked, "answers": [] if impossible else [answer], "is_impossible": impossible})
            paragraphs.append({"context": text, "qas": qas})
        data.append({"title": f"{name} {a}", "paragraphs": paragraphs})
    return {"version": f"v{version}.0", "data": data}


def flat(document: dict) -> list[dict]:
    rows = []
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = question["answers"]
                rows.append(
                    {
                        "id": question["id"],
                        "title": article["title"],
                        "context": paragraph["context"],
                        "question": question["question"],
                        "answers": {
                            "text": [answer["text"] for answer in answers],
                            "answer_start": [answer["answer_start"] for answer in answers],
                        },
                    }
                )
    return rows


def pairs(name: str, count: int) -> list[dict]:
    return [{"id": f"{name}-{i}", "question": f"{name}: what is {i} + 1?", "answer": f"{i + 1}"} for i in range(count)]


def written(job: Job) -> dict[str, bytes]:
    paths = [*job.workspace.dataset.iterdir(), job.workspace.reports / "data.json"]
    return {path.name: path.read_bytes() for path in paths}


def all_questions(document: dict) -> dict[str, tuple[str, str, dict]]:
    """Each question by id, with its article and context."""
    return {
        question["id"]: (article["title"], paragraph["context"], question)
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    }


# What is written.


@pytest.mark.parametrize("template", TEMPLATES)
def test_tokens_are_those_of_the_whole_prompt_of_each_record(job, template):
    job.run(template)
    tokenizer, form = AutoTokenizer.from_pretrained(TINY_FALCON), TEMPLATES[template]
    records = all_questions(squad("train", 12, 3, 4)) | all_questions(squad("dev", 2, 2, 3))
    seen = 0
    for row in (row for name in SPLITS for row in job.split(name)):
        for question in row.questions:
            title, context, record = records[question.id]
            answers = [answer["text"] for answer in record["answers"]]
            assert (row.article, row.context, question.question) == (title, context, record["question"])
            assert question.answers == answers
            text = form.shared_text(context) + form.question_text(record["question"], closed_book=False)
            text += form.answer_text(answers[0] if answers else None)
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


def test_settings_say_what_later_stages_need(job):
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


# Formats.


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
    tokenizer, form = AutoTokenizer.from_pretrained(TINY_FALCON), TEMPLATES[template]
    for row in (row for name in SPLITS for row in job.split(name)):
        (question,) = row.questions
        assert row.context is None
        assert row.prefix_ids == []
        text = form.question_text(question.question, closed_book=True) + form.answer_text(question.answers[0])
        assert question.prompt_ids + question.answer_ids == [*tokenizer.encode(text), tokenizer.eos_token_id]


# Splits.


def test_validation_is_whole_articles_where_there_are_ten(job):
    report = job.run(validation_fraction=0.25)
    assert (report["train"]["articles"], report["validation"]["articles"]) == (9, 3)
    titles = {name: {row.article for row in job.split(name)} for name in SPLITS}
    assert not titles["train"] & titles["validation"]


def test_validation_is_whole_passages_where_there_are_fewer(job):
    job.raw("train", ".json", squad("train", 9, 4, 4))
    report = job.run(validation_fraction=0.25)
    assert (report["train"]["passages"], report["validation"]["passages"]) == (27, 9)
    contexts = {name: {row.context for row in job.split(name)} for name in SPLITS}
    assert not contexts["train"] & contexts["validation"]


def test_a_fraction_of_zero_leaves_validation_empty(job):
    report = job.run(validation_fraction=0)
    assert job.split("validation") == []
    assert report["validation"]["kept"] == 0
    assert report["train"]["kept"] == 144


def test_a_limit_takes_a_seeded_subset_of_whole_passages(job):
    report = job.run(limit=41)
    assert report["train"]["kept"] + report["validation"]["kept"] == 40
    assert report["left_out_by_limit"] == 104
    drawn = set(job.ids("train")) | set(job.ids("validation"))
    records = all_questions(squad("train", 12, 3, 4))
    contexts = {records[id_][1] for id_ in drawn}
    assert drawn == {id_ for id_, (_, context, _) in records.items() if context in contexts}
    assert len(job.split("dev")) == 4
    job.run(limit=41, seed=1)
    assert set(job.ids("train")) | set(job.ids("validation")) != drawn


def test_what_train_and_dev_share_is_said_and_counted(job, caplog):
    shared = squad("train", 12, 3, 4)
    job.raw("dev", ".json", {"data": shared["data"][:1]})
    with caplog.at_level(logging.WARNING):
        report = job.run()
    assert report["overlaps"] == 2
    messages = [record.getMessage() for record in caplog.records]
    assert any("train and dev overlap: question ids in both train and dev: 12" in message for message in messages)
    assert any("train and dev overlap: passages in both train and dev: 3" in message for message in messages)


def test_distinct_splits_give_no_warning(job, caplog):
    with caplog.at_level(logging.WARNING):
        job.run()
    assert caplog.records == []


# What is wrong.


def test_all_bad_records_of_a_file_are_named_at_once(job):
    document = squad("train", 12, 3, 4)
    document["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = 9999
    document["data"][5]["paragraphs"][1]["qas"][1]["question"] = " "
    del document["data"][7]["paragraphs"][2]["context"]
    job.raw("train", ".json", document)
    head, *lines = job.fails().split("\n")
    assert head.endswith("train.json: 3 problems")
    assert "'train-0-0-0'" in lines[0]
    assert "'train-5-1-1'" in lines[1]
    assert "article 7 'train 7', paragraph 2" in lines[2]


def test_bad_records_leave_what_an_earlier_run_wrote(job):
    job.run()
    before = written(job)
    job.raw("dev", ".json", {"data": []})
    with pytest.raises(InputError):
        job.run()
    assert written(job) == before


def test_questions_of_dev_that_are_too_long_are_named_and_nothing_is_left(job):
    document = squad("dev", 2, 2, 3)
    for paragraph in document["data"][1]["paragraphs"]:
        paragraph["qas"][1]["question"] = "Which word? " * 200
    job.raw("dev", ".json", document)
    head, *lines = job.fails().split("\n")
    assert "set preprocess.max_tokens (now 384) to " in head
    assert [line.split(":")[0] for line in lines] == [
        "  article 'dev 1', question 'dev-1-0-1'",
        "  article 'dev 1', question 'dev-1-1-1'",
    ]
    report = job.run(max_tokens=int(head.split()[-1]))
    assert report["dev"]["kept"] == 12


def test_training_on_nothing_is_an_error_and_leaves_nothing(job):
    document = squad("train", 12, 3, 4)
    for _, _, question in all_questions(document).values():
        question["question"] = "Which word? " * 200
    job.raw("train", ".json", document)
    message = job.fails()
    assert message.startswith("dataset.train: none of its questions can be trained on (")
    assert "question_too_long" in message
    assert "raise preprocess.max_tokens" in message


@pytest.mark.parametrize("closed", ["train", "dev"])
def test_one_file_with_passages_and_one_without_are_an_error(job, closed):
    job.raw(closed, ".jsonl", pairs(closed, 20))
    opened = {"train": "dev", "dev": "train"}[closed]
    assert job.fails() == (
        f"dataset.{opened} asks about passages, dataset.{closed} is closed book: name two files of the same kind"
    )


def test_a_single_passage_cannot_be_split(job):
    assert "preprocess.validation_fraction to 0" in job.fails(limit=1)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_file_that_was_not_fetched_is_named(job, split):
    (job.workspace.raw / f"{split}.json").unlink()
    assert f"holds no {split} file: run `falcon-job run fetch`" in job.fails()


def test_a_tokenizer_that_is_not_the_pinned_one_is_an_error(job):
    path = job.workspace.data / "model" / "tokenizer_config.json"
    path.write_text(path.read_text() + "\n")
    assert "tokenizer_config.json is not the file that build/base.json records" in job.fails()


def changed_tokenizer(tmp_path, **roles):
    folder = saved(tmp_path / "tokenizer", "gpt-2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for role, token in roles.items():
        setattr(tokenizer, role, token)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_without_end_of_text_is_an_error(job, tmp_path):
    job.model(changed_tokenizer(tmp_path, eos_token=None))
    assert job.fails().startswith("model.source: its tokenizer has no end-of-text token")


def test_a_tokenizer_that_merges_across_pieces_is_told(job, tmp_path, caplog):
    job.model(saved(tmp_path / "tokenizer", "merging"))
    with caplog.at_level(logging.WARNING):
        job.run(max_tokens=2000)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("model.source: its tokenizer merges across the pieces of a prompt (")


@pytest.mark.parametrize("kind", ["llama-2", "llama-3", "falcon", "word pieces"])
def test_other_tokenizers_give_no_warning_and_end_every_answer(job, tmp_path, caplog, kind):
    job.model(saved(tmp_path / "tokenizer", kind))
    with caplog.at_level(logging.WARNING):
        job.run(max_tokens=1000)
    assert caplog.records == []
    tokenizer = AutoTokenizer.from_pretrained(job.workspace.data / "model")
    for row in (row for name in SPLITS for row in job.split(name)):
        assert all(question.answer_ids[-1] == tokenizer.eos_token_id for question in row.questions)
        assert all(tokenizer.pad_token_id not in question.answer_ids for question in row.questions)


# Real text.


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
