"""Write the demo dataset: train.json and dev.json in the format of SQuAD v2.0, about an invented world.

Run as `python -m tools.demo.dataset OUT_FOLDER`. The bytes are the same on every run and every Python. No invented
name stands in both files, or in what falcon-tiny was pretrained on (`tools.demo.world`).
"""

import json
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import click

from tools.demo.kinds import Kind, kinds
from tools.demo.passages import Asked, ask, write_passage
from tools.demo.world import Share, World

SEED = 20
SPLITS: tuple[tuple[Share, int], ...] = (("train", 9), ("dev", 2))
"""Articles of each kind."""
PASSAGES = 3
"""Of an article."""
QUESTIONS = ((4, 2), (5, 2), (6, 3), (4, 2), (5, 3), (6, 3))
"""Answerable and unanswerable questions of a passage, in turn: a third of all is unanswerable."""

Record = dict[str, Any]


def write_article(world: World, kind: Kind, counts: Iterator[tuple[int, int]], number: str) -> Record:
    """Return an article: passages about things of one kind in one region."""
    region = world.place()
    names = [world.fill(kind.name) for _ in range(PASSAGES)]
    paragraphs = []
    for i, name in enumerate(names):
        passage = write_passage(world, kind, name, region)
        others = [other for other in names if other != name]
        asked = ask(world, passage, *next(counts), others)
        questions = [{"id": f"{number}-{i}-{j}", **_record(one)} for j, one in enumerate(asked)]
        paragraphs.append({"context": passage.text, "qas": questions})
    return {"title": kind.title.replace("{region}", region), "paragraphs": paragraphs}


def _record(asked: Asked) -> Record:
    said = asked.statement
    answers = [{"text": said.answer, "answer_start": said.start}] if said else []
    return {"question": asked.question, "answers": answers, "is_impossible": not answers}


def write_split(share: Share, articles: int) -> Record:
    """Return a dataset with `articles` articles of each kind."""
    world, counts = World(SEED, share), cycle(QUESTIONS)
    data = [write_article(world, kind, counts, f"{share}-{i}") for i, kind in enumerate(articles * kinds())]
    return {"version": "v2.0", "data": data}


def write_demo_dataset(folder: Path) -> None:
    """Write train.json and dev.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for share, articles in SPLITS:
        text = json.dumps(write_split(share, articles), indent=1, ensure_ascii=True)
        (folder / f"{share}.json").write_text(text + "\n", encoding="ascii", newline="\n")


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write into FOLDER."""
    write_demo_dataset(folder)


if __name__ == "__main__":
    main()
