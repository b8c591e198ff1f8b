import contextlib
import os
import pty
import subprocess
import sys

from falcon_job.records.dataset import read_passages
from tests.commands.ask.asking import ROOT, answers, ask, first_passage, predictions, refused


def test_typed_questions_are_answered_one_by_one_loading_once(workspace, passage, loads):
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


def test_a_terminal_offers_a_passage_that_an_empty_line_takes(workspace, passage):
    question = first_passage(workspace).questions[0].text
    expected = ask("--context", passage, "--question", question).stdout
    shown = at_a_terminal(workspace, f"\n{question}\n")

    assert f"Press Enter to use this passage:\n{passage.read_text()}\n" in shown
    assert shown.endswith(f"question> {expected}question> ")


def test_at_a_terminal_a_typed_passage_is_used(workspace):
    passage = read_passages(workspace.data / "dev.json")[1]
    (workspace.root / "other.txt").write_text(passage.text)
    question = passage.questions[0].text
    expected = ask("--context", "other.txt", "--question", question).stdout

    assert f"question> {expected}" in at_a_terminal(workspace, f"{passage.text}\n{question}\n")


def test_an_empty_standard_input_is_refused(workspace):
    refused("Standard input has no question: give --question", typed="")


def test_what_is_typed_must_be_utf_8(workspace, passage):
    refused("Standard input is not UTF-8: type or pipe UTF-8", "--context", passage, typed=b"Wh\xff?\n")
