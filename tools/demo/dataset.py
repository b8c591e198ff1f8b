"""Write the demo dataset: train.json and dev.json in SQuAD v2.0 format, about an invented world.

Run as `python -m tools.demo.dataset OUT_FOLDER`. Every run on every version of Python writes the same bytes. No
invented name appears in both files, or in the text that falcon-tiny is pretrained on (`tools.demo.world`).
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
"""The number of articles about each kind, by split."""
PASSAGES = 3
"""The number of passages in an article."""
QUESTIONS = ((4, 2), (5, 2), (6, 3), (4, 2), (5, 3), (6, 3))
"""The numbers of answerable and unanswerable questions for each passage in turn; a third are unanswerable."""

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
    """Return a dataset with `articles` articles about each kind."""
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
    """Write the dataset into FOLDER."""
    write_demo_dataset(folder)


if __name__ == "__main__":
    main()
