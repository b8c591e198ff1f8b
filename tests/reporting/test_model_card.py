import io
import re

import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from falcon_job.params import validate
from falcon_job.reporting.model_card import model_card
from tests.inference.finished_run import make_params

SCORES = {
    "exact": 61.239,
    "f1": 70.5,
    "total": 321,
    "exact_ci": {"low": 55.111, "high": 66.666},
    "f1_ci": {"low": 65.25, "high": 74.75},
    "has_ans_exact": 41.5,
    "has_ans_f1": 52.25,
    "has_ans_total": 200,
    "no_ans_exact": 81.125,
    "no_ans_f1": 82.875,
    "no_ans_total": 121,
    "always_abstain_f1": 37.69,
}
MADE = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "c0ffee" * 6,
    "python": "3.11.7",
    "machine": "CPU",
    "libraries": {"falcon_job": "0.1.0", "torch": "2.13.0"},
}
HUB = {"source": "tiiuae/falcon-7b", "revision": "0123456789" * 4, "precision": "nf4"}


def card(scores=SCORES, closed_book=False, **changes):
    return model_card(make_params(**changes), scores, MADE, closed_book=closed_book)


def test_the_scores_are_those_of_the_report():
    text = card()
    for line in (
        "| all | 61.24 | 70.50 |",
        "| answerable (200) | 41.50 | 52.25 |",
        "| unanswerable (121) | 81.12 | 82.88 |",
        "On 321 dev questions",
        "exact 55.11 to 66.67, F1 65.25 to 74.75",
        "Always abstaining scores F1 37.69",
    ):
        assert line in text


def test_groups_without_questions_are_left_out():
    text = card({name: value for name, value in SCORES.items() if not name.startswith(("no_ans", "has_ans"))})
    assert "answerable (" not in text
    assert "| all | 61.24 | 70.50 |" in text


@pytest.mark.parametrize("changes", [{}, {"model": HUB}, {"evaluate": {"limit": 7, "extractive": True}}])
def test_the_params_block_reads_back_as_the_very_params(changes):
    (block,) = re.findall(r"```yaml\n(.*?)```", card(**changes), re.DOTALL)
    assert validate(YAML(typ="safe").load(io.StringIO(block)), "card") == make_params(**changes)


def test_the_hub_reads_the_metadata():
    data = ModelCard(card(model=HUB)).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("tiiuae/falcon-7b", "peft", "text-generation")
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {"exact": 61.24, "f1": 70.5}
    assert data.eval_results[0].dataset_name == "dev.json"


def test_a_local_base_is_not_named_as_a_model_of_the_hub():
    assert ModelCard(card()).data.base_model is None


def test_the_snippet_pins_the_base_and_its_precision():
    code = 'AutoModelForCausalLM.from_pretrained("tiiuae/falcon-7b", revision="{}", dtype="bfloat16")'
    assert code.format(HUB["revision"]) in card(model=HUB)
    assert 'AutoModelForCausalLM.from_pretrained("data/tiny", dtype="float32")' in card()


@pytest.mark.parametrize(
    ("template", "closed_book", "prompt"),
    [
        ("squad-v2", False, "Passage: {context}\nQuestion: {question}\nAnswer: {answer}"),
        ("squad-v2", True, "Question: {question}\nAnswer: {answer}"),
        ("seed", False, "<human>: {context}\n{question}\n<assistant>: {answer}"),
        ("seed", True, "<human>: {question}\n<assistant>: {answer}"),
    ],
)
def test_the_prompt_is_shown_as_it_was_trained(template, closed_book, prompt):
    text = card(closed_book=closed_book, prompt={"template": template})
    assert f"```\n{prompt}\n```" in text
    assert ("--context" in text) is not closed_book


def test_the_card_says_what_it_was_made_with():
    text = card()
    for word in (MADE["date"], MADE["commit"], "2.13.0", "falcon_job 0.1.0"):
        assert word in text


def test_no_placeholder_of_the_template_is_left():
    assert not re.search(r"{{|{%|None \|$", card(), re.MULTILINE)
