"""The text that falcon-tiny is pretrained on: documents about the invented world, in other words than the job's prompt.

A sixth of the documents is plain prose, a sixth is lists of facts, and the rest is passages with questions. An answer
is a few words, a sentence from the passage, or a note that the passage has no answer. The questions come in several
forms, because a model that knows several forms soon learns another one. No name from the demo's two files appears here
(`tools.demo.world`).
"""

from collections.abc import Callable, Iterator
from itertools import count

from tools.demo.kinds import kinds
from tools.demo.passages import Asked, Passage, ask, write_passage
from tools.demo.world import World

QUESTIONS = ((4, 3), (5, 4), (6, 5), (8, 6))
"""The numbers of answerable and unanswerable questions to ask about a passage. Some passages allow fewer."""


def documents(seed: int) -> Iterator[str]:
    """Yield documents forever. Equal seeds give equal documents."""
    world = World(seed, "pretraining")
    for _ in count():
        yield world.pick(MIX)(world)


def _passage(world: World) -> Passage:
    kind = world.pick(kinds())
    return write_passage(world, kind, world.fill(kind.name), world.place())


def prose(world: World) -> str:
    """Return one to three passages."""
    return "\n\n".join(_passage(world).text for _ in range(world.between(1, 3)))


def facts(world: World) -> str:
    """Return the facts of a passage as a list: alone, or before or after the passage."""
    passage = _passage(world)
    bullet = world.pick(("- ", "* ", ""))
    lines = [f"{bullet}{said.fact.label}: {said.answer}" for said in world.mixed(passage.stated)]
    listed = "\n".join([passage.name, *lines])
    return world.pick((listed, f"{passage.text}\n\n{listed}", f"{listed}\n\n{passage.text}"))


def exercise(world: World) -> str:
    """Return a passage with questions, all in the same form."""
    passage = _passage(world)
    others = [world.fill(passage.kind.name) for _ in range(2)]
    asked = ask(world, passage, *world.pick(QUESTIONS), others)
    answer = world.pick(FORMS)
    return "\n".join([passage.text, *(answer(one) for one in asked)])


def briefly(asked: Asked) -> str:
    """Answer in a few words."""
    return f"({asked.question}) {asked.statement.answer if asked.statement else 'not told'};"


def quoting(asked: Asked) -> str:
    """Answer with the sentence that states the fact."""
    said = f'"{asked.statement.sentence}"' if asked.statement else "nothing in the text."
    return f"> {asked.question}\n= {said}"


def answer_first(asked: Asked) -> str:
    """Give the answer before the question."""
    said = asked.statement.answer if asked.statement else "No word of the text"
    return f"* {said} <- {asked.question}"


def in_turn(asked: Asked) -> str:
    """Ask and answer like two people in a conversation."""
    return f"-- {asked.question}\n-- {asked.statement.answer if asked.statement else 'That stays open'}."


def as_row(asked: Asked) -> str:
    """Put the question and the answer into a row of a table."""
    return f"| {asked.question} | {asked.statement.answer if asked.statement else '-'} |"


FORMS: tuple[Callable[[Asked], str], ...] = (briefly, quoting, answer_first, in_turn, as_row)
MIX: tuple[Callable[[World], str], ...] = (prose, facts, exercise, exercise, exercise, exercise)
