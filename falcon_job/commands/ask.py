"""`falcon-job ask`: load the trained model once, and answer questions with it."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from falcon_job.errors import InputError
from falcon_job.inference.bundle import Bundle, open_bundle
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

SHOWN_CHARACTERS = 60
DEMO = "data/falcon-tiny"
DEMO_NOTE = f"{DEMO} is the demo's model: it can only answer questions about passages from its invented world."


@dataclass(frozen=True)
class Asked:
    """A question and its passage; the passage is None for a model that was trained without passages."""

    question: str
    context: str | None
    id: Any = None
    """The id in the row of --input, which is passed on to the output."""


class Answerer:
    """A loaded model that answers questions about passages of any length."""

    def __init__(self, bundle: Bundle, machine: Machine, workspace: Workspace) -> None:
        folder = locate(workspace, bundle.base)
        base = load_base(folder, bundle.params.model.precision, choose_device(machine))
        encoder = make_encoder(folder, bundle.template)
        self._bundle = bundle
        self._examples = ExampleEncoder(encoder, bundle.max_tokens, bundle.params.preprocess.seed)
        self._generator = make_generator(load_adapter(base, bundle.folder), encoder, bundle.params, machine)

    def answer(self, asked: list[Asked]) -> list[Reply]:
        """Return a reply to each question.

        Raises:
            InputError: a question is too long for the model.
        """
        windows = [window for number, one in enumerate(asked) for window in self._windows(number, one)]
        return reply_to(windows, self._generator, extractive=self._bundle.params.evaluate.extractive)

    def _windows(self, number: int, asked: Asked) -> list[EncodedPassage]:
        """Return the windows of the passage, each with the question, whose id is `number`."""
        question = Question(id=str(number), text=asked.question, answers=())
        passage = Passage(article="", text=asked.context, questions=(question,))
        try:
            return list(self._examples.scoring([passage], self._bundle.answer_tokens, Tally()))
        except InputError as error:
            raise InputError(
                "is too long for this model, which was trained on passage, question and answer of at most "
                f"{self._bundle.max_tokens} tokens together",
                place=_place(asked),
                fix="shorten it",
            ) from error


def ask(
    folder: Path | None, context: Path | None, question: str | None, questions: Path | None, *, as_json: bool
) -> None:
    """Answer one question, the questions in a file, or questions typed at the prompt.

    Args:
        folder: folder of an export or an adapter; None: the export of this clone, or else its adapter.
        context: file with the passage.
        question: one question.
        questions: JSONL file with questions and passages.
        as_json: print each answer as a JSON object.

    Raises:
        InputError: the options do not go together, a file cannot be read, or there is no trained model.
    """
    _check_options(context, question, questions)
    workspace = Workspace.find()
    bundle = open_bundle(folder, workspace)
    passage = _read_text(context) if context else None
    if passage is not None and bundle.closed_book:
        raise _takes_no_passage()
    given = _read_questions(questions) if questions else [Asked(question, passage)] if question else []
    for asked in given:
        check(asked, bundle)
    if bundle.base.source == DEMO:
        click.echo(DEMO_NOTE, err=True)
    answerer = Answerer(bundle, read_machine(workspace.root), workspace)
    if given:
        for asked, reply in zip(given, answerer.answer(given), strict=True):
            _print(asked, reply, as_json=as_json)
    else:
        _answer_typed(answerer, bundle, passage, workspace, as_json=as_json)


def _check_options(context: Path | None, question: str | None, questions: Path | None) -> None:
    if questions and (question is not None or context):
        raise InputError(
            "cannot be combined with --question or --context",
            place="--input",
            fix="put `question` and `context` into each of its rows",
        )
    if question is not None and not question.strip():
        raise InputError("is empty", place="--question", fix="write a question, or leave out the option to type one")


def check(asked: Asked, bundle: Bundle) -> None:
    """Check a question before the model is loaded.

    Raises:
        InputError: the model needs a passage and there is none, or the other way round, or text cannot be encoded.
    """
    if bundle.closed_book and asked.context is not None:
        raise _takes_no_passage()
    if not bundle.closed_book and asked.context is None:
        raise InputError(
            "has no passage, but this model needs one",
            place=_place(asked),
            fix="add --context FILE, or `context` to each row of --input",
        )
    try:
        f"{asked.question}{asked.context}".encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "or its passage has an unpaired surrogate, which is not a character",
            place=_place(asked),
            fix="remove it",
        ) from error


def _takes_no_passage() -> InputError:
    return InputError("This model was trained without passages", fix="leave out --context, or `context` in --input")


def _place(asked: Asked) -> str:
    text = asked.question
    return f"The question {text if len(text) <= SHOWN_CHARACTERS else f'{text[:SHOWN_CHARACTERS]}...'!a}"


def _read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, which must not be blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError("does not exist", place=path, fix="correct its path") from None
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", place=path, fix="make it a readable text file"
        ) from error
    except UnicodeDecodeError:
        raise InputError("is not UTF-8", place=path, fix="save it as UTF-8") from None
    if not text.strip():
        raise InputError("is empty", place=path, fix="write some text into it")
    return text


def _read_questions(path: Path) -> list[Asked]:
    """Return the questions of a JSONL file. Only line feeds end rows, since JSON strings may contain U+2028."""
    lines = _read_text(path).split("\n")
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(line: str, place: str) -> Asked:
    """Return the question in a line of JSON."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"is not valid JSON ({error})", place=place, fix="write one JSON object per line") from None
    question = row.get("question") if isinstance(row, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise InputError("has no question", place=place, fix='write {"question": "...", "context": "..."}')
    context = row.get("context")
    if context is not None and (not isinstance(context, str) or not context.strip()):
        raise InputError(
            "has a `context` that is empty or not text", place=place, fix="put the passage there, or leave it out"
        )
    return Asked(question, context, row.get("id"))


def _answer_typed(
    answerer: Answerer, bundle: Bundle, passage: str | None, workspace: Workspace, *, as_json: bool
) -> None:
    """Answer questions as they are typed, one per line, until the end of input."""
    if passage is None and not bundle.closed_book:
        passage = _typed_passage(workspace.dataset / "dev.arrow")
    answered = False
    for asked in _typed_questions(passage, closed_book=bundle.closed_book):
        check(asked, bundle)
        _print(asked, answerer.answer([asked])[0], as_json=as_json)
        answered = True
    if not answered and not sys.stdin.isatty():
        raise InputError(
            "has no question", place="Standard input", fix="give --question, --input FILE, or one question per line"
        )


def _typed_passage(dev: Path) -> str:
    """Return the passage typed; at a terminal, an empty line stands for the first passage of `dev`."""
    sample = Split(dev)[0].context if sys.stdin.isatty() and dev.exists() else None
    if not sample:
        return _typed_line("passage (one line)")
    click.echo(f"Press Enter to use this passage:\n{sample}", err=True)
    return _typed_line("passage (one line)", sample)


def _typed_questions(passage: str | None, *, closed_book: bool) -> Iterator[Asked]:
    """Yield the questions typed; none if a passage is needed and missing."""
    while (passage or closed_book) and (question := _typed_line("question")):
        yield Asked(question, passage)


def _typed_line(name: str, default: str = "") -> str:
    """Return the next line that is not blank, or `default` for a blank one; "" at the end of input."""
    while True:
        if sys.stdin.isatty():
            click.echo(f"{name}> ", nl=False, err=True)
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            raise InputError("is not UTF-8", place="Standard input", fix="type or pipe UTF-8") from None
        if not line or line.strip():
            return line.strip()
        if default:
            return default


def _print(asked: Asked, reply: Reply, *, as_json: bool) -> None:
    if not as_json:
        click.echo(reply.answer or f"(no answer; best guess: {reply.forced})")
        return
    answer = {
        "id": asked.id,
        "question": asked.question,
        "answer": reply.answer,
        "answered": bool(reply.answer),
        "best_guess": reply.forced,
        "no_answer_probability": reply.no_answer_probability,
    }
    click.echo(json.dumps(answer, ensure_ascii=False))
