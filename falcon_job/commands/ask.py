"""`falcon-job ask`: answer questions with the trained model, loaded once."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from falcon_job.errors import InputError
from falcon_job.inference.bundle import Package, open_package
from falcon_job.inference.replies import Reply, reply_to
from falcon_job.inference.scoring import make_generator
from falcon_job.machine import Machine, read_machine
from falcon_job.model.adapter import load_adapter
from falcon_job.model.loading import load_base
from falcon_job.model.precision import choose_device
from falcon_job.records.passage import Passage, Question
from falcon_job.sources.base_model import locate
from falcon_job.tokens.dataset import EncodedPassage, Split
from falcon_job.tokens.examples import ExampleEncoder, Tally
from falcon_job.tokens.tokenizer import make_encoder
from falcon_job.workspace import Workspace

SHOWN_CHARS = 60
DEMO = "data/falcon-tiny"
DEMO_NOTE = f"{DEMO} is the demo's model: it knows passages about its invented world, and nothing else."


@dataclass(frozen=True)
class Asked:
    """A question with its passage; None for a model trained without."""

    question: str
    context: str | None
    id: str | None = None


class Answerer:
    """A loaded model that answers questions about passages of any length."""

    def __init__(self, package: Package, machine: Machine, workspace: Workspace) -> None:
        folder = locate(workspace, package.base)
        base = load_base(folder, package.params.model.precision, choose_device(machine))
        encoder = make_encoder(folder, package.template)
        self._package = package
        self._examples = ExampleEncoder(encoder, package.max_tokens, package.params.preprocess.seed)
        self._generator = make_generator(load_adapter(base, package.folder), encoder, package.params, machine)

    def answer(self, asked: list[Asked]) -> list[Reply]:
        """Return a reply to each question.

        Raises:
            InputError: a question is too long for the model.
        """
        rows = [row for number, one in enumerate(asked) for row in self._rows(number, one)]
        return reply_to(rows, self._generator, extractive=self._package.params.evaluate.extractive)

    def _rows(self, number: int, asked: Asked) -> list[EncodedPassage]:
        question = Question(id=str(number), text=asked.question, answers=())
        passage = Passage(article="", text=asked.context, questions=(question,))
        try:
            return list(self._examples.scoring([passage], self._package.answer_tokens, Tally()))
        except InputError:
            raise InputError(
                f"the question {_short(asked.question)} is too long for this model (passage, question and answer "
                f"were at most {self._package.max_tokens} tokens in training): shorten it"
            ) from None


def check(asked: Asked, package: Package) -> None:
    """Check a question before the model is loaded.

    Raises:
        InputError: it lacks its passage, has one that the model was trained without, or is no text.
    """
    if package.closed_book and asked.context is not None:
        raise InputError("this model was trained without passages: leave out --context and `context`")
    if not package.closed_book and asked.context is None:
        raise InputError(
            f"no passage for the question {_short(asked.question)}: this model answers from a passage; give --context "
            "FILE, or a `context` in each row of --input"
        )
    try:
        f"{asked.question}{asked.context}".encode()
    except UnicodeEncodeError:
        raise InputError(
            f"the question {_short(asked.question)} or its passage holds what is no character: give UTF-8"
        ) from None


def _short(question: str) -> str:
    return ascii(question if len(question) <= SHOWN_CHARS else f"{question[:SHOWN_CHARS]}...")


def ask(
    folder: Path | None, context: Path | None, question: str | None, questions: Path | None, *, as_json: bool
) -> None:
    """Answer one question, those of a file, or those typed at the prompt.

    Raises:
        InputError: the options do not go together, a file cannot be read, or there is no trained model.
    """
    if questions and (question is not None or context):
        raise InputError("--input goes without --question and --context: its rows hold both")
    if question is not None and not question.strip():
        raise InputError("--question is empty: write the question, or leave it out to be asked for it")
    workspace = Workspace.find()
    package = open_package(folder, workspace)
    passage = _read(context) if context else None
    batch = _read_questions(questions) if questions else [Asked(question, passage)] if question else None
    for asked in batch or []:
        check(asked, package)
    if passage is not None and package.closed_book:
        check(Asked("", passage), package)
    if package.base.source == DEMO:
        click.echo(DEMO_NOTE, err=True)
    answerer = Answerer(package, read_machine(workspace.root), workspace)
    if batch is not None:
        for asked, reply in zip(batch, answerer.answer(batch), strict=True):
            _print(asked, reply, as_json=as_json)
        return
    answered = False
    if passage is None and not package.closed_book:
        passage = _typed_passage(workspace.dataset / "dev.arrow")
    for asked in _typed(passage, closed_book=package.closed_book):
        check(asked, package)
        _print(asked, answerer.answer([asked])[0], as_json=as_json)
        answered = True
    if not answered and not sys.stdin.isatty():
        raise InputError("no question came on standard input: give --question, or --input FILE, or a line a question")


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: name a text file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8: save it as UTF-8") from None
    if not text.strip():
        raise InputError(f"{path} is empty: put the passage in it")
    return text


def _read_questions(path: Path) -> list[Asked]:
    asked = []
    for number, line in enumerate(_read(path).split("\n"), start=1):  # not at U+2028, which JSON may hold
        if line.strip():
            asked.append(_parse(line, f"{path}, line {number}"))
    if not asked:
        raise InputError(f"{path} holds no question: write one object a line")
    return asked


def _parse(line: str, where: str) -> Asked:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: no JSON ({error}): write one object a line") from None
    question = row.get("question") if isinstance(row, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise InputError(f'{where}: no question: write {{"question": "...", "context": "..."}}')
    context = row.get("context")
    if context is not None and (not isinstance(context, str) or not context.strip()):
        raise InputError(f"{where}: `context` must be the text of the passage, or be left out")
    return Asked(question, context, row.get("id"))


def _typed_passage(dev: Path) -> str:
    """Return the first line typed; at a terminal, an empty line takes the first passage of a split instead."""
    sample = Split(dev)[0].context if sys.stdin.isatty() and dev.exists() else None
    if not sample:
        return _line("passage (one line)")
    click.echo(f"Enter alone takes this passage:\n{sample}", err=True)
    return _line("passage (one line)", sample)


def _typed(passage: str | None, *, closed_book: bool) -> Iterator[Asked]:
    """Yield the questions typed, a line each, until the end of input."""
    while (passage or closed_book) and (question := _line("question")):
        yield Asked(question, passage)


def _line(name: str, default: str = "") -> str:
    """Return the next line that is not blank, `default` for a blank one, "" at the end of input."""
    while True:
        if sys.stdin.isatty():
            click.echo(f"{name}> ", nl=False, err=True)
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            raise InputError("what was typed is not UTF-8: type or pipe UTF-8") from None
        if not line or line.strip():
            return line.strip()
        if default:
            return default


def _print(asked: Asked, reply: Reply, *, as_json: bool) -> None:
    if as_json:
        answer = {
            "id": asked.id,
            "question": asked.question,
            "answer": reply.answer,
            "answered": bool(reply.answer),
            "best_guess": reply.forced,
            "no_answer_probability": reply.no_answer_probability,
        }
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        click.echo(reply.answer or f"(no answer; best guess: {reply.forced})")
