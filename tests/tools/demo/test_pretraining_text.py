"""The pretraining text is reproducible, varied, and worded differently from the job's prompt."""

import re
from itertools import islice

from falcon_job.qa.prompt import TEMPLATES
from tools.demo.pretraining_text import documents


def test_only_equal_seeds_give_equal_documents():
    first, again, other = (list(islice(documents(seed), 50)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == len(first)


def test_no_document_uses_the_wording_of_the_jobs_prompt():
    text = "\n".join(islice(documents(3), 500))
    for template in TEMPLATES.values():
        pieces = (template.passage, template.question, template.closed_book)
        marks = {mark for piece in pieces for mark in re.split(r"{\w+}|\n", piece) if mark.strip()}
        assert marks
        for mark in (*marks, template.no_answer):
            assert mark.strip() not in text


def test_passages_lists_and_exercises_are_mixed():
    texts = list(islice(documents(4), 600))
    exercises = [text for text in texts if "?" in text]
    assert 0.6 < len(exercises) / len(texts) < 0.73
    for form in ("(", "> ", "* ", "-- ", "| "):
        assert any(text.split("\n")[-1].startswith(form) or f"\n{form}" in text for text in exercises)
