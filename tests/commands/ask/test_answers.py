import json
import os
import shutil
import subprocess
import sys

import pytest

from falcon_job.commands import ask as command
from falcon_job.inference.generation import Generator
from falcon_job.params import load_params
from falcon_job.records.dataset import read_passages
from tests.commands.ask.asking import ROOT, answers, ask, first_passage, predictions, write_rows
from tests.inference.finished_run import WRONG, encoder_of, finished_run, write_adapter


def test_one_question_about_a_file_is_answered_as_in_evaluate(workspace, passage):
    for question in first_passage(workspace).questions:
        expected = predictions(workspace)[question.id]
        printed = ask("--context", passage, "--question", question.text).stdout.strip()
        assert printed == expected if expected else printed.startswith("(no answer")
    assert WRONG in predictions(workspace).values()


def test_json_holds_answer_guess_and_probability(workspace, passage):
    na_prob = json.loads((workspace.build / "na_prob.json").read_text())
    forced = json.loads((workspace.build / "forced.json").read_text())
    for question in first_passage(workspace).questions:
        (answer,) = answers(ask("--context", passage, "--question", question.text, "--json"))
        expected = predictions(workspace)[question.id]
        assert answer == {
            "id": None,
            "question": question.text,
            "answer": expected,
            "answered": bool(expected),
            "best_guess": forced[question.id],
            "no_answer_probability": pytest.approx(na_prob[question.id], rel=1e-3),
        }


def test_a_file_of_questions_is_answered_as_in_evaluate_loading_once(workspace, loads):
    passages = read_passages(workspace.data / "dev.json")
    rows = [{"id": q.id, "question": q.text, "context": p.text} for p in passages for q in p.questions]
    found = answers(ask("--input", write_rows(workspace.root / "questions.jsonl", *rows), "--json"))
    said, expected = {answer["id"]: answer["answer"] for answer in found}, predictions(workspace)
    short = {q.id for p in passages[:-1] for q in p.questions}  # windows are cut for the questions asked together
    assert said.keys() == expected.keys()
    assert {name: said[name] for name in short} == {name: expected[name] for name in short}
    assert [answer["id"] for answer in found] == [row["id"] for row in rows]
    assert len(loads) == 1


def test_every_window_of_a_long_passage_is_asked(workspace, monkeypatch):
    asked = {}
    honest = Generator.no_answer_probabilities

    def spy(generator, prompts):
        found = honest(generator, prompts)
        asked.update(zip(map(tuple, prompts), found, strict=True))
        return found

    monkeypatch.setattr(Generator, "no_answer_probabilities", spy)
    ships = [f"Ship {n} came from Turku with salt." for n in range(60)]
    (workspace.root / "long.txt").write_text(" ".join(ships))
    question = first_passage(workspace).questions[0].text
    (answer,) = answers(ask("--context", "long.txt", "--question", question, "--json"))
    assert answer["no_answer_probability"] == min(asked.values()) < max(asked.values())
    assert max(map(len, asked)) < 80, "preprocess.max_tokens"
    decode = encoder_of(workspace).tokenizer.decode
    windows = [decode(list(prompt)) for prompt in asked]
    assert all(any(ship in window for window in windows) for ship in ships)


def test_without_json_each_answer_is_a_line(workspace):
    first = first_passage(workspace)
    rows = [{"question": q.text, "context": first.text} for q in first.questions]
    result = ask("--input", write_rows(workspace.root / "questions.jsonl", *rows))
    assert len(result.stdout.splitlines()) == len(rows)


def test_the_demo_model_says_what_it_is(workspace, passage, monkeypatch):
    asked = ("--context", passage, "--question", "Who?")
    assert "demo" not in ask(*asked).stderr
    monkeypatch.setattr(command, "DEMO", load_params(workspace.params).model.source)
    assert command.DEMO_NOTE in ask(*asked).stderr


def test_line_separators_inside_a_json_string_do_not_end_a_row(workspace):
    first = first_passage(workspace)
    rows = [{"question": f"{first.questions[0].text}{mark}", "context": first.text} for mark in "\u2028\u0085\u2029"]
    found = answers(ask("--input", write_rows(workspace.root / "questions.jsonl", *rows), "--json"))
    assert len(found) == 3


def test_byte_order_mark_and_windows_line_ends_are_read(workspace):
    first = first_passage(workspace)
    row = json.dumps({"question": first.questions[0].text, "context": first.text})
    path = workspace.root / "questions.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{row}\r\n\r\n{row}\r\n".encode())
    expected = predictions(workspace)[first.questions[0].id]
    assert [answer["answer"] for answer in answers(ask("--input", path, "--json"))] == [expected] * 2


def test_the_adapter_answers_where_there_is_no_export(workspace, passage):
    shutil.rmtree(workspace.export)
    question = first_passage(workspace).questions[0]
    for options in ([], ["--from", workspace.adapter]):
        printed = ask("--context", passage, "--question", question.text, *options).stdout.strip()
        assert printed == predictions(workspace)[question.id]


def test_an_export_copied_elsewhere_answers_in_any_folder_of_a_clone(workspace, passage, tmp_path, monkeypatch):
    copy = tmp_path / "elsewhere" / "model"
    shutil.copytree(workspace.export, copy)
    for folder in (workspace.export, workspace.adapter, workspace.dataset):
        shutil.rmtree(folder)
    workspace.base.unlink()
    monkeypatch.chdir(workspace.data)
    question = first_passage(workspace).questions[0]
    printed = ask("--from", copy, "--context", passage, "--question", question.text).stdout.strip()
    assert printed == predictions(workspace)[question.id]


def test_the_adapter_and_not_the_base_answers(workspace, passage):
    before = answers(ask("--context", passage, "--question", "Who?", "--json"))[0]["no_answer_probability"]
    write_adapter(workspace, finished_run().params, size=0.3)
    asked = ("--from", workspace.adapter, "--context", passage, "--question", "Who?", "--json")
    assert answers(ask(*asked))[0]["no_answer_probability"] != pytest.approx(before)


def test_the_command_prints_its_answer_and_nothing_else(workspace, passage):
    question = first_passage(workspace).questions[0]
    line = [sys.executable, "-m", "falcon_job", "ask", "--context", str(passage), "--question", question.text]
    done = subprocess.run(line, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, check=True)
    assert (done.stdout, done.stderr) == (predictions(workspace)[question.id] + "\n", "")
