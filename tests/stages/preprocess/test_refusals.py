"""What the preprocess stage refuses, or warns of: bad records, questions that are too long, tokenizers."""

import logging

import pytest
from transformers import AutoTokenizer

from falcon_job.errors import InputError
from tests.made_tokenizers import saved
from tests.stages.preprocess.job import SPLITS, all_questions, pairs, squad, written


def test_all_bad_records_of_a_file_are_named_at_once(job):
    document = squad("train", 12, 3, 4)
    document["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = 9999
    document["data"][5]["paragraphs"][1]["qas"][1]["question"] = " "
    del document["data"][7]["paragraphs"][2]["context"]
    job.raw("train", ".json", document)
    head, *lines = job.fails().split("\n")
    assert head.endswith("train.json has 3 problems")
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


def test_dev_questions_that_are_too_long_are_all_named(job):
    document = squad("dev", 2, 2, 3)
    for paragraph in document["data"][1]["paragraphs"]:
        paragraph["qas"][1]["question"] = "Which word? " * 200
    job.raw("dev", ".json", document)
    head, *lines = job.fails().split("\n")
    assert "set preprocess.max_tokens (now 384) to " in head
    assert [line.split(" takes ")[0] for line in lines] == [
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
    assert message.startswith("dataset.train has no question that can be trained on (")
    assert "question_too_long" in message
    assert "raise preprocess.max_tokens" in message


@pytest.mark.parametrize("closed", ["train", "dev"])
def test_one_file_with_passages_and_one_without_are_an_error(job, closed):
    job.raw(closed, ".jsonl", pairs(closed, 20))
    opened = {"train": "dev", "dev": "train"}[closed]
    assert job.fails() == (
        f"dataset.{opened} asks about passages, but dataset.{closed} is closed-book: use two files of the same kind"
    )


def test_a_single_passage_cannot_be_split(job):
    assert "preprocess.validation_fraction to 0" in job.fails(limit=1)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_file_that_was_not_fetched_is_named(job, split):
    (job.workspace.raw / f"{split}.json").unlink()
    assert f"has no {split} file: run `falcon-job run fetch`" in job.fails()


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
    assert job.fails().startswith("model.source names a model whose tokenizer has no end-of-text token")


def test_a_tokenizer_that_merges_across_pieces_is_warned_of(job, tmp_path, caplog):
    job.model(saved(tmp_path / "tokenizer", "merging"))
    with caplog.at_level(logging.WARNING):
        job.run(max_tokens=2000)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("the tokenizer of model.source merges tokens across the pieces of a prompt (")


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
