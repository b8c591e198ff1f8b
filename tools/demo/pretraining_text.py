"""What falcon-tiny is pretrained on: documents about the invented world, worded otherwise than the job's prompt.

A sixth is plain prose, a sixth lists of facts, and the rest passages with questions, answered in a few words, by the
sentence that says so, or by saying that nothing does, in several forms: a model that knows several learns another one
soon. Its names are in neither of the demo's files (`tools.demo.world`).
"""

from collections.abc import Callable, Iterator
from itertools import count

from tools.demo.kinds import kinds
from tools.demo.passages import Asked, Passage, ask, write_passage
from tools.demo.world import World

QUESTIONS = ((4, 3), (5, 4), (6, 5), (8, 6))
"""Answerable and unanswerable ones that are wanted of a passage, which may not have as many."""


def documents(seed: int) -> Iterator[str]:
    """Yield documents without end; equal seeds, equal documents."""
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
    """Return what a passage states as a list, before it, behind it, or alone."""
    passage = _passage(world)
    bullet = world.pick(("- ", "* ", ""))
    lines = [f"{bullet}{said.fact.label}: {said.answer}" for said in world.mixed(passage.stated)]
    listed = "\n".join([passage.name, *lines])
    return world.pick((listed, f"{passage.text}\n\n{listed}", f"{listed}\n\n{passage.text}"))


def exercise(world: World) -> str:
    """Return a passage with questions, all in one of the forms."""
    passage = _passage(world)
    others = [world.fill(passage.kind.name) for _ in range(2)]
    asked = ask(world, passage, *world.pick(QUESTIONS), others)
    answer = world.pick(FORMS)
    return "\n".join([passage.text, *(answer(one) for one in asked)])


def briefly(asked: Asked) -> str:
    """Answer in a few words."""
    return f"({asked.question}) {asked.statement.answer if asked.statement else 'not told'};"


def quoting(asked: Asked) -> str:
    """Answer with the sentence that says so."""
    said = f'"{asked.statement.sentence}"' if asked.statement else "nothing in the text."
    return f"> {asked.question}\n= {said}"


def answer_first(asked: Asked) -> str:
    """Give the answer before the question."""
    said = asked.statement.answer if asked.statement else "No word of the text"
    return f"* {said} <- {asked.question}"


def in_turn(asked: Asked) -> str:
    """Ask and answer as two who talk."""
    return f"-- {asked.question}\n-- {asked.statement.answer if asked.statement else 'That stays open'}."


def as_row(asked: Asked) -> str:
    """Put question and answer into the cells of a table."""
    return f"| {asked.question} | {asked.statement.answer if asked.statement else '-'} |"


FORMS: tuple[Callable[[Asked], str], ...] = (briefly, quoting, answer_first, in_turn, as_row)
MIX: tuple[Callable[[World], str], ...] = (prose, facts, exercise, exercise, exercise, exercise)
