import pytest
from ruamel.yaml import YAML

from falcon_job.machine import Machine
from falcon_job.stages.evaluate import evaluate
from falcon_job.stages.export import export
from tests.commands.ask.asking import answers, ask
from tests.inference.finished_run import make_params


def test_a_closed_book_model_answers_without_a_passage(closed_book, loads):
    (answer,) = answers(ask("--question", "What is the 10th ship?", "--json"))
    assert answer["best_guess"]
    typed = answers(ask("--json", typed="What is the 10th ship?\nWhat is the 11th ship?\n"))
    assert [row["question"] for row in typed] == ["What is the 10th ship?", "What is the 11th ship?"]
    assert typed[0]["no_answer_probability"] == pytest.approx(answer["no_answer_probability"], rel=1e-4)
    assert len(loads) == 2


def test_a_closed_book_export_is_written_and_asked(closed_book):
    params = make_params(**{"dataset": YAML(typ="safe").load(closed_book.params)["dataset"]})
    evaluate(params, Machine(), closed_book)
    export(params, Machine(), closed_book)
    assert answers(ask("--from", closed_book.export, "--question", "What is the 10th ship?", "--json"))[0]["best_guess"]
    card = (closed_book.export / "README.md").read_text()
    assert "without a passage" in card
    assert "{context}" not in card
