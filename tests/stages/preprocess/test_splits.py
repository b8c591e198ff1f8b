"""Which questions of train are trained on, validate or are left out, and what train shares with dev."""

import logging

from tests.stages.preprocess.job import SPLITS, all_questions, squad


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


def test_what_train_and_dev_share_is_logged_and_counted(job, caplog):
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
