import io
import shutil

import pytest

from tests.commands.ask.asking import refused, write_rows


def test_an_export_whose_base_changed_on_disk_is_refused(workspace, passage, loads):
    with (workspace.data / "tiny" / "model.safetensors").open("r+b") as file:
        file.seek(-4, io.SEEK_END)
        file.write(b"\0\0\1\0")
    refused("model.safetensors is not the file that", "--context", passage, "--question", "Who?")
    assert not loads


def test_a_damaged_adapter_is_refused(workspace, passage):
    path = workspace.export / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:300])
    refused("adapter_model.safetensors is damaged", "--context", passage, "--question", "Who?")


def test_unreadable_files_are_named_before_the_model_is_loaded(workspace, loads):
    (workspace.root / "latin.txt").write_bytes("Malmö".encode("latin-1"))
    (workspace.root / "empty.txt").write_text(" \n")
    for option in ("--context", "--input"):
        extra = ["--question", "Who?"] if option == "--context" else []
        refused("nowhere.txt does not exist: correct its path", option, "nowhere.txt", *extra)
        refused("latin.txt is not UTF-8: save it as UTF-8", option, "latin.txt", *extra)
        refused("empty.txt is empty", option, "empty.txt", *extra)
    assert not loads


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[1]", "line 2 has no question"),
        ("{}", "line 2 has no question"),
        ('{"question": " ", "context": "x"}', "line 2 has no question"),
        ('{"question": 3, "context": "x"}', "line 2 has no question"),
        ('{"question": "Who?", "context": ""}', "line 2 has a `context` that is empty or not text"),
        ('{"question": "Who?", "context": ["x"]}', "line 2 has a `context` that is empty or not text"),
        ('{"question": "Who built it?"}', "The question 'Who built it.' has no passage"),
        (
            '{"question": "Who \\ud800?", "context": "x"}',
            r"The question 'Who \\ud800.' or its passage .* not a character",
        ),
    ],
)
def test_a_bad_row_is_named_before_the_model_is_loaded(workspace, loads, line, message):
    path = workspace.root / "questions.jsonl"
    path.write_text('{"question": "Who?", "context": "x"}\n' + line + "\n")
    refused(message, "--input", path)
    assert not loads


def test_options_that_cannot_be_combined_are_refused(workspace, passage, loads):
    rows = write_rows(workspace.root / "questions.jsonl", {"question": "Who?", "context": "x"})
    refused("--input cannot be combined with --question or --context", "--input", rows, "--question", "Who?")
    refused("--input cannot be combined with --question or --context", "--input", rows, "--question", "")
    refused("--input cannot be combined with --question or --context", "--input", rows, "--context", passage)
    refused("--question is empty", "--context", passage, "--question", " ")
    refused("The question 'Who.' has no passage.*--context FILE", "--question", "Who?")
    assert not loads


def test_a_question_too_long_for_the_model_says_so(workspace, passage):
    question = "Who " + "really " * 80 + "built it?"
    message = "The question 'Who really .* is too long .*80 tokens.*shorten it"
    refused(message, "--context", passage, "--question", question)


def test_no_trained_model_says_what_to_run(workspace, passage):
    shutil.rmtree(workspace.export)
    shutil.rmtree(workspace.adapter)
    refused("holds no adapter: run `falcon-job run`", "--context", passage, "--question", "Who?")
    refused("nowhere holds no adapter", "--from", "nowhere", "--context", passage, "--question", "Who?")


def test_outside_a_clone_ask_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("no dvc.yaml", "--question", "Who?")


def test_a_closed_book_model_refuses_a_passage_before_it_is_loaded(closed_book, loads):
    (closed_book.root / "passage.txt").write_text("Ships.")
    rows = write_rows(closed_book.root / "questions.jsonl", {"question": "Who?", "context": "Ships."})
    for arguments in (
        ["--context", "passage.txt", "--question", "Who?"],
        ["--context", "passage.txt"],
        ["--input", rows],
    ):
        refused("trained without passages: leave out --context, or `context` in --input", *arguments)
    assert not loads
