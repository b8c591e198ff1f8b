"""Print the table in docs/demo.md: statistics of the demo's questions, and the scores of guessed answers.

Run as `python -m tools.demo.report data`.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median

import click
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from falcon_job.qa.metric import question_scores
from falcon_job.records.dataset import read_passages
from falcon_job.records.passage import Answer, Passage

Guess = Callable[[str], str]
"""Maps the text of a passage to one answer for all its questions."""
SENTENCE_ENDS = re.compile(r"(?<=\.) ")
CAPITALISED = re.compile(r"[A-Z]\w+ [A-Z]\w+")


def guesses(passages: Sequence[Passage]) -> dict[str, Guess]:
    """Return ways to answer without reading the question, by name."""
    (commonest, _), *_ = Counter(answer.text for answer in _answers(passages)).most_common(1)
    return {
        "always abstaining": lambda text: "",
        "always giving the commonest answer": lambda text: commonest,
        "the first sentence": lambda text: SENTENCE_ENDS.split(text)[0],
        "the last sentence": lambda text: SENTENCE_ENDS.split(text)[-1],
        "the first two capitalised words": lambda text: (CAPITALISED.findall(text) or [""])[0],
        "the last two capitalised words": lambda text: (CAPITALISED.findall(text) or [""])[-1],
    }


def f1_of(guess: Guess, passages: Sequence[Passage]) -> float:
    """Return the mean F1 of a guess, in percent."""
    golds = {question.id: [a.text for a in question.answers] for passage in passages for question in passage.questions}
    answers = {question.id: guess(passage.text or "") for passage in passages for question in passage.questions}
    return 100 * mean(score.f1 for score in question_scores(answers, golds).values())


def rows(passages: Sequence[Passage], tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return the statistics of a split, by name."""
    questions = [question for passage in passages for question in passage.questions]
    texts = [passage.text or "" for passage in passages]
    answers = _answers(passages)
    return {
        "passages": f"{len(passages)}",
        "questions": f"{len(questions):,}",
        "unanswerable": f"{mean(not question.answers for question in questions):.1%}",
        "questions of a passage": _spread([len(passage.questions) for passage in passages]),
        "words of a passage": _spread([len(text.split()) for text in texts]),
        "tokens of a passage": _spread([len(ids) for ids in tokenizer(texts)["input_ids"]]),
        "words of an answer": _spread([len(answer.text.split()) for answer in answers]),
        "different answers": f"{len({answer.text for answer in answers}):,} of {len(answers):,}",
        "answers in the first, second, last third of their passage": _thirds(passages),
    } | {f"F1 of {name}": f"{f1_of(guess, passages):.1f}" for name, guess in guesses(passages).items()}


def _answers(passages: Sequence[Passage]) -> list[Answer]:
    return [question.answers[0] for passage in passages for question in passage.questions if question.answers]


def _spread(numbers: Sequence[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}, median {median(numbers):g}"


def _thirds(passages: Sequence[Passage]) -> str:
    thirds = Counter(
        3 * (answer.start or 0) // len(passage.text or "") for passage in passages for answer in _answers([passage])
    )
    return ", ".join(f"{thirds[third] / thirds.total():.0%}" for third in range(3))


def table(folder: Path) -> str:
    """Return the statistics of both splits as a Markdown table."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "falcon-tiny", local_files_only=True)
    train, dev = (rows(read_passages(folder / f"{split}.json"), tokenizer) for split in ("train", "dev"))
    lines = [f"| {name} | {train[name]} | {dev[name]} |" for name in train]
    return "\n".join(["| | train | dev |", "| --- | --- | --- |", *lines])


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print the table for the dataset in FOLDER."""
    click.echo(table(folder))


if __name__ == "__main__":
    main()
