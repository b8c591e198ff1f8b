"""Write the demo dataset: train.json and dev.json in the format of SQuAD v2.0, about an invented world.

Run as `python -m tools.make_demo_data OUT_FOLDER`. The bytes are the same on every run and every
Python: all chance comes from `Random.random`, the one method whose sequence Python guarantees for a seed.
A name is drawn once, so dev asks about people and places that train never names.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from tools.demo_prose import KINDS, Fact, Kind

SEED = 20
SPLITS = (("train", 2, 4), ("dev", 1, 2))
"""Name, articles of each kind, and passages of an article."""
QUESTIONS = ((3, 2), (4, 2), (5, 2))
"""Answerable and unanswerable questions of a passage, in turn: a third of all is unanswerable."""
STATED = 6
"""Facts that a passage states; the others of its kind are what it leaves open."""

T = TypeVar("T")
Record = dict[str, Any]


class World:
    """Draws the names and numbers of an invented world; no name comes twice."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.given = iter(self.mixed(_words(GIVEN_STARTS, GIVEN_ENDS)))
        self.surnames = iter(self.mixed(_words(STARTS, SURNAME_ENDS)))
        self.places = iter(self.mixed(_words(STARTS, PLACE_ENDS)))
        self.counts = itertools.cycle(QUESTIONS)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of `options`."""
        return options[int(self.random.random() * len(options))]

    def mixed(self, items: Sequence[T]) -> list[T]:
        """Return `items` in random order."""
        return sorted(items, key=lambda _: self.random.random())

    def person(self) -> str:
        """Return a new person's full name."""
        return f"{next(self.given)} {next(self.surnames)}"

    def surname(self) -> str:
        """Return a new family's name."""
        return next(self.surnames)

    def place(self) -> str:
        """Return a new place's name."""
        return next(self.places)

    def between(self, first: int, last: int) -> int:
        """Return a whole number from `first` to `last`."""
        return first + int(self.random.random() * (last - first + 1))

    def fill(self, template: str) -> str:
        """Return `template` with blanks such as `[person]`, `[1800-1890]` or `[oak|pine]` drawn."""
        head, opened, rest = template.partition("[")
        if not opened:
            return template
        blank, _, tail = rest.partition("]")
        return head + self._draw(blank) + self.fill(tail)

    def _draw(self, blank: str) -> str:
        makers: dict[str, Callable[[], str]] = {
            "person": self.person,
            "surname": self.surname,
            "place": self.place,
        }
        if blank in makers:
            return makers[blank]()
        first, dash, last = blank.partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            return str(self.between(int(first), int(last)))
        return self.pick(blank.split("|"))


STARTS = "Ar Bel Bran Cor Dal Drev Eld Fen Gar Hol Ist Jor Kel Lom Mar Nor Pel Quor Rav Sil Tor Ver Wes Yar Zel"
PLACE_ENDS = "bury dale field ford gate ham haven holm mere mouth port stead ton wick vik zand"
SURNAME_ENDS = "aby ane ardi bec den eck ello emar enko idge immer inov lund man ovic quist rell sen strom well"
GIVEN_STARTS = "Ad Be Ca Da El Fi Ga Ha Il Jo Ka Le Mi Na Or Pe Ro Sa Te Vi"
GIVEN_ENDS = "bina dric gon la lius mon nara nek rah ran rell rik sander sin tha via vra xen ya zo"


def _words(starts: str, ends: str) -> list[str]:
    return [start + end for start, end in itertools.product(starts.split(), ends.split())]


@dataclass(frozen=True)
class Passage:
    """A written passage: its text, and each fact with its answer and where that stands (none: not stated)."""

    name: str
    kind: Kind
    text: str
    stated: list[tuple[Fact, str, int]]
    open: list[Fact]


def write_passage(world: World, kind: Kind, name: str, region: str) -> Passage:
    """Tell some facts of a kind about one thing."""
    facts = world.mixed(kind.facts)
    text = world.fill(world.pick(kind.openings)).format(name=name, region=region)
    stated = []
    for fact in sorted(facts[:STATED], key=kind.facts.index):
        answer = world.fill(fact.answer)
        before, after = world.pick(fact.sentences).format(name=name, region=region, answer="\0").split("\0")
        stated.append((fact, answer, len(text) + 1 + len(before)))
        text = f"{text} {before}{answer}{after}"
    return Passage(name, kind, text, stated, facts[STATED:])


def ask(world: World, passage: Passage, counts: tuple[int, int], others: list[str], number: str) -> list[Record]:
    """Return the questions on a passage.

    An unanswerable one asks for a fact that the passage leaves open, or for a stated one of another thing.
    """
    answerable, unanswerable = counts
    records = []
    for fact, answer, start in world.mixed(passage.stated)[:answerable]:
        question = world.pick(fact.questions).format(name=passage.name)
        records.append(_record(question, [{"text": answer, "answer_start": start}]))
    for fact in passage.open[: unanswerable - 1]:
        records.append(_record(world.pick(fact.questions).format(name=passage.name), []))
    fact = world.pick(passage.stated)[0]
    records.append(_record(world.pick(fact.questions).format(name=world.pick(others)), []))
    return [{"id": f"{number}-{i}", **record} for i, record in enumerate(world.mixed(records))]


def _record(question: str, answers: list[Record]) -> Record:
    return {"question": question, "answers": answers, "is_impossible": not answers}


def write_article(world: World, kind: Kind, size: int, number: str) -> Record:
    """Return an article: passages about things of one kind in one region."""
    region = world.place()
    names = [world.fill(kind.name) for _ in range(size)]
    paragraphs = []
    for i, name in enumerate(names):
        passage = write_passage(world, kind, name, region)
        others = [other for other in names if other != name]
        questions = ask(world, passage, next(world.counts), others, f"{number}-{i}")
        paragraphs.append({"context": passage.text, "qas": questions})
    return {"title": kind.title.format(region=region), "paragraphs": paragraphs}


def write_split(world: World, name: str, articles: int, passages: int) -> Record:
    """Return a dataset with `articles` articles of each kind."""
    kinds = [kind for _ in range(articles) for kind in KINDS]
    data = [write_article(world, kind, passages, f"{name}-{i}") for i, kind in enumerate(kinds)]
    return {"version": "v2.0", "data": data}


def make_demo_data(folder: Path) -> None:
    """Write train.json and dev.json into `folder`."""
    world = World(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    for name, articles, passages in SPLITS:
        text = json.dumps(write_split(world, name, articles, passages), indent=1, ensure_ascii=True)
        (folder / f"{name}.json").write_text(text + "\n", encoding="ascii", newline="\n")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Write the demo dataset.")
    parser.add_argument("folder", type=Path)
    make_demo_data(parser.parse_args().folder)


if __name__ == "__main__":
    main()
