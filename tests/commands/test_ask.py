import contextlib
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from falcon_job.cli import cli
from falcon_job.commands import ask as command
from falcon_job.errors import InputError
from falcon_job.inference.generation import Generator
from falcon_job.machine import Machine
from falcon_job.params import load_params
from falcon_job.records.dataset import read_passages
from falcon_job.stages.evaluate import evaluate
from falcon_job.stages.export import export
from falcon_job.stages.fetch import fetch
from falcon_job.stages.preprocess import preprocess
from tests.inference.finished_run import (
    WRONG,
    encoder_of,
    finished_run,
    fresh_copy,
    make_params,
    write_adapter,
    write_params,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = finished_run()
    workspace = fresh_copy(tmp_path_factory.mktemp("trained"), run.workspace)
    evaluate(run.params, Machine(), workspace)
    export(run.params, Machine(), workspace)
    return workspace


@pytest.fixture
def workspace(tmp_path, trained, monkeypatch):
    """A clone with an export, in which commands run; loads are counted in `workspace_loads`."""
    workspace = fresh_copy(tmp_path / "clone", trained)
    monkeypatch.chdir(workspace.root)
    return workspace


@pytest.fixture
def loads(monkeypatch):
    """The folders from which a base model was loaded."""
    folders = []
    honest = command.load_base

    def load(folder, *arguments):
        folders.append(folder)
        return honest(folder, *arguments)

    monkeypatch.setattr(command, "load_base", load)
    return folders


@pytest.fixture
def passage(workspace):
    """A file with the first dev passage."""
    path = workspace.root / "passage.txt"
    path.write_text(first_passage(workspace).text)
    return path


def first_passage(workspace):
    return read_passages(workspace.data / "dev.json")[0]


def predictions(workspace):
    return json.loads((workspace.build / "predictions.json").read_text())


def ask(*arguments, typed=None):
    """Run `falcon-job ask`; an error of ours is raised, as `main` would print it."""
    result = CliRunner().invoke(cli, ["ask", *map(str, arguments)], input=typed)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answers(result):
    return [json.loads(line) for line in result.stdout.split("\n") if line]


def write_rows(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(match, *arguments, typed=None):
    with pytest.raises(InputError, match=match) as caught:
        ask(*arguments, typed=typed)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


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


def test_a_file_of_all_dev_questions_is_answered_as_in_evaluate_loading_once(workspace, loads):
    passages = read_passages(workspace.data / "dev.json")
    rows = [{"id": q.id, "question": q.text, "context": p.text} for p in passages for q in p.questions]
    found = answers(ask("--input", write_rows(workspace.root / "questions.jsonl", *rows), "--json"))
    said, expected = {answer["id"]: answer["answer"] for answer in found}, predictions(workspace)
    short = {q.id for p in passages[:-1] for q in p.questions}  # windows are cut for the questions asked together
    assert said.keys() == expected.keys()
    assert {name: said[name] for name in short} == {name: expected[name] for name in short}
    assert [answer["id"] for answer in found] == [row["id"] for row in rows]
    assert len(loads) == 1


def test_every_window_of_a_long_passage_is_asked_and_the_least_sure_of_no_answer_speaks(workspace, monkeypatch):
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


def test_questions_without_json_are_answered_a_line_each(workspace):
    first = first_passage(workspace)
    rows = [{"question": q.text, "context": first.text} for q in first.questions]
    result = ask("--input", write_rows(workspace.root / "questions.jsonl", *rows))
    assert len(result.stdout.splitlines()) == len(rows)


def test_typed_questions_about_a_file_are_answered_one_by_one_loading_once(workspace, passage, loads):
    questions = first_passage(workspace).questions[:3]
    typed = "\n\n".join(question.text for question in questions) + "\n"
    found = answers(ask("--context", passage, "--json", typed=typed))
    assert [answer["answer"] for answer in found] == [predictions(workspace)[question.id] for question in questions]
    assert len(loads) == 1


def test_without_a_file_the_first_typed_line_is_the_passage(workspace):
    first = first_passage(workspace)
    found = answers(ask("--json", typed=f"\n{first.text}\n{first.questions[0].text}\n{first.questions[1].text}"))
    assert [answer["answer"] for answer in found] == [predictions(workspace)[q.id] for q in first.questions[:2]]


def at_a_terminal(workspace, typed):
    """Type lines at a terminal, of which the last ends the input; return what it shows."""
    screen, keyboard = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "falcon_job", "ask"]
    process = subprocess.Popen(
        command, cwd=workspace.root, env=environment, stdin=keyboard, stdout=keyboard, stderr=keyboard
    )
    os.close(keyboard)
    os.write(screen, typed.encode() + b"\x04")
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so where the other end is closed
        while part := os.read(screen, 4096):
            shown += part
    assert process.wait() == 0, shown.decode()
    return shown.decode().replace("\r\n", "\n")


def test_at_a_terminal_a_sample_passage_is_offered_and_taken_by_an_empty_line(workspace, passage):
    question = first_passage(workspace).questions[0].text
    expected = ask("--context", passage, "--question", question).stdout
    shown = at_a_terminal(workspace, f"\n{question}\n")

    assert f"Enter alone takes this passage:\n{passage.read_text()}\n" in shown
    assert shown.endswith(f"question> {expected}question> ")


def test_at_a_terminal_a_passage_that_is_typed_counts(workspace):
    passage = read_passages(workspace.data / "dev.json")[1]
    (workspace.root / "other.txt").write_text(passage.text)
    question = passage.questions[0].text
    expected = ask("--context", "other.txt", "--question", question).stdout

    assert f"question> {expected}" in at_a_terminal(workspace, f"{passage.text}\n{question}\n")


def test_the_demo_model_says_what_it_is(workspace, passage, monkeypatch):
    asked = ("--context", passage, "--question", "Who?")
    assert "demo" not in ask(*asked).stderr
    monkeypatch.setattr(command, "DEMO", load_params(workspace.params).model.source)
    assert command.DEMO_NOTE in ask(*asked).stderr


def test_a_script_that_asks_nothing_is_told_so(workspace):
    refused("no question came on standard input: give --question", typed="")


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


def test_an_export_whose_base_changed_on_disk_is_refused(workspace, passage, loads):
    with (workspace.data / "tiny" / "model.safetensors").open("r+b") as file:
        file.seek(-4, io.SEEK_END)
        file.write(b"\0\0\1\0")
    refused("model.safetensors is not the file that", "--context", passage, "--question", "Who?")
    assert not loads


def test_a_damaged_adapter_is_refused(workspace, passage):
    path = workspace.export / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:300])
    refused("export is damaged, or an adapter for another model", "--context", passage, "--question", "Who?")


def test_files_that_cannot_be_read_are_named_before_the_model_is_loaded(workspace, loads):
    (workspace.root / "latin.txt").write_bytes("Malmö".encode("latin-1"))
    (workspace.root / "empty.txt").write_text(" \n")
    for option in ("--context", "--input"):
        extra = ["--question", "Who?"] if option == "--context" else []
        refused("nowhere.txt: No such file or directory: name a text file", option, "nowhere.txt", *extra)
        refused("latin.txt is not UTF-8: save it as UTF-8", option, "latin.txt", *extra)
        refused("empty.txt is empty", option, "empty.txt", *extra)
    assert not loads


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no JSON"),
        ("[1]", "line 2: no question"),
        ("{}", "line 2: no question"),
        ('{"question": " ", "context": "x"}', "line 2: no question"),
        ('{"question": 3, "context": "x"}', "line 2: no question"),
        ('{"question": "Who?", "context": ""}', "line 2: `context` must be the text"),
        ('{"question": "Who?", "context": ["x"]}', "line 2: `context` must be the text"),
        ('{"question": "Who built it?"}', "no passage for the question 'Who built it.'"),
        ('{"question": "Who \\ud800?", "context": "x"}', r"the question 'Who \\ud800.' .*give UTF-8"),
    ],
)
def test_a_bad_row_is_named_before_the_model_is_loaded(workspace, loads, line, message):
    path = workspace.root / "questions.jsonl"
    path.write_text('{"question": "Who?", "context": "x"}\n' + line + "\n")
    refused(message, "--input", path)
    assert not loads


def test_options_that_do_not_go_together_are_refused(workspace, passage, loads):
    rows = write_rows(workspace.root / "questions.jsonl", {"question": "Who?", "context": "x"})
    refused("--input goes without --question and --context", "--input", rows, "--question", "Who?")
    refused("--input goes without --question and --context", "--input", rows, "--question", "")
    refused("--input goes without --question and --context", "--input", rows, "--context", passage)
    refused("--question is empty", "--context", passage, "--question", " ")
    refused("no passage for the question 'Who.'.*--context FILE", "--question", "Who?")
    assert not loads


def test_a_question_too_long_for_the_model_says_so(workspace, passage):
    question = "Who " + "really " * 80 + "built it?"
    message = "the question 'Who really .* is too long .*80 tokens.*shorten it"
    refused(message, "--context", passage, "--question", question)


def test_no_trained_model_says_what_to_run(workspace, passage):
    shutil.rmtree(workspace.export)
    shutil.rmtree(workspace.adapter)
    refused("holds no adapter: run `falcon-job run`", "--context", passage, "--question", "Who?")
    refused("nowhere holds no adapter", "--from", "nowhere", "--context", passage, "--question", "Who?")


def test_outside_a_clone_ask_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("no dvc.yaml", "--question", "Who?")


@pytest.fixture
def closed_book(tmp_path, monkeypatch):
    """A clone whose adapter was trained on questions without passages."""
    workspace = fresh_copy(tmp_path / "closed", finished_run().workspace)
    pairs = [{"question": f"What is the {n}th ship?", "answer": f"Ship {n}"} for n in range(12)]
    write_rows(workspace.data / "train.jsonl", *pairs[:9])
    write_rows(workspace.data / "dev.jsonl", *pairs[9:])
    params = make_params(dataset={"train": "data/train.jsonl", "dev": "data/dev.jsonl"})
    write_params(workspace, params)
    fetch(params, Machine(), workspace)
    preprocess(params, Machine(), workspace)
    monkeypatch.chdir(workspace.root)
    return workspace


def test_a_closed_book_model_answers_without_a_passage(closed_book, loads):
    (answer,) = answers(ask("--question", "What is the 10th ship?", "--json"))
    assert answer["best_guess"]
    typed = answers(ask("--json", typed="What is the 10th ship?\nWhat is the 11th ship?\n"))
    assert [row["question"] for row in typed] == ["What is the 10th ship?", "What is the 11th ship?"]
    assert typed[0]["no_answer_probability"] == pytest.approx(answer["no_answer_probability"], rel=1e-4)
    assert len(loads) == 2


def test_a_closed_book_model_refuses_a_passage_before_it_is_loaded(closed_book, loads):
    (closed_book.root / "passage.txt").write_text("Ships.")
    rows = write_rows(closed_book.root / "questions.jsonl", {"question": "Who?", "context": "Ships."})
    for arguments in (
        ["--context", "passage.txt", "--question", "Who?"],
        ["--context", "passage.txt"],
        ["--input", rows],
    ):
        refused("trained without passages: leave out --context and `context`", *arguments)
    assert not loads


def test_a_closed_book_export_is_written_and_asked(closed_book):
    params = make_params(**{"dataset": YAML(typ="safe").load(closed_book.params)["dataset"]})
    evaluate(params, closed_book)
    export(params, closed_book)
    assert answers(ask("--from", closed_book.export, "--question", "What is the 10th ship?", "--json"))[0]["best_guess"]
    card = (closed_book.export / "README.md").read_text()
    assert "without a passage" in card
    assert "{context}" not in card


def test_what_is_typed_must_be_utf_8(workspace, passage):
    refused("what was typed is not UTF-8: type or pipe UTF-8", "--context", passage, typed=b"Wh\xff?\n")


def test_the_command_prints_its_answer_and_nothing_else(workspace, passage):
    question = first_passage(workspace).questions[0]
    line = [sys.executable, "-m", "falcon_job", "ask", "--context", str(passage), "--question", question.text]
    done = subprocess.run(line, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, check=True)
    assert (done.stdout, done.stderr) == (predictions(workspace)[question.id] + "\n", "")
