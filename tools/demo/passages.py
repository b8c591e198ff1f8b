"""Passages about invented things, and what can be asked of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from tools.demo.kinds import Fact, Kind
from tools.demo.templates import BLANK, NAMES, RANGE
from tools.demo.world import World

STATED = (6, 8)
ASIDES = (1, 3)
"""Fewest and most of a passage."""


@dataclass(frozen=True)
class Statement:
    """A fact as a passage tells it: the answer, the sentence, and where in the passage the answer begins."""

    fact: Fact
    answer: str
    sentence: str
    start: int


@dataclass(frozen=True)
class Passage:
    """A written passage, the facts that it states, and those that it leaves open."""

    kind: Kind
    name: str
    text: str
    stated: tuple[Statement, ...]
    open: tuple[Fact, ...]


@dataclass(frozen=True)
class Asked:
    """A question, and the statement that answers it: None where the passage does not."""

    question: str
    statement: Statement | None


def write_passage(world: World, kind: Kind, name: str, region: str) -> Passage:
    """Tell some facts about one thing in their order, with asides between."""
    told = set(world.mixed(range(len(kind.facts)))[: world.between(*STATED)])
    sentences: list[tuple[str, Fact | None, str]] = []
    for fact in (fact for i, fact in enumerate(kind.facts) if i in told):
        sentences.append((world.pick(fact.sentences), fact, world.fill(fact.answer)))
    for aside in world.mixed(kind.asides)[: world.between(*ASIDES)]:
        sentences.insert(world.between(0, len(sentences)), (aside, None, ""))
    text = _written(world, world.pick(kind.openings), name, region)
    stated = []
    for template, told_fact, answer in sentences:
        before, _, after = (_written(world, part, name, region) for part in template.partition("{answer}"))
        sentence = f"{before}{answer}{after}"
        if told_fact:
            stated.append(Statement(told_fact, answer, sentence, len(text) + 1 + len(before)))
        text = f"{text} {sentence}"
    untold = tuple(fact for i, fact in enumerate(kind.facts) if i not in told)
    return Passage(kind, name, text, tuple(stated), untold)


def _written(world: World, template: str, name: str, region: str) -> str:
    return world.fill(template).replace("{name}", name).replace("{region}", region)


def ask(world: World, passage: Passage, answerable: int, unanswerable: int, others: Sequence[str]) -> list[Asked]:
    """Return questions on a passage, in random order.

    Of those that it does not answer a third ask for a fact that it states of this thing, but of another one; the others
    for a fact that it leaves open, of a sort that it has an answer of, where there is one. There are fewer where it
    states, or leaves open, too little.
    """
    asked = [
        Asked(_question(world, statement.fact, passage.name), statement)
        for statement in world.mixed(passage.stated)[:answerable]
    ]
    rivals = {sort_of(statement.fact) for statement in passage.stated}
    plausible = sorted(world.mixed(passage.open), key=lambda fact: sort_of(fact) not in rivals)
    swapped = sum(world.chance(1 / 3) for _ in range(unanswerable))
    strangers = zip(world.mixed(passage.stated)[:swapped], world.mixed(others), strict=False)
    asked += [Asked(_question(world, statement.fact, other), None) for statement, other in strangers]
    still = answerable + unanswerable - len(asked)
    asked += [Asked(_question(world, fact, passage.name), None) for fact in plausible[:still]]
    return world.mixed(asked)


def sort_of(fact: Fact) -> str:
    """Return what sort of answer a fact has: a name's, a number's, or one of several words."""
    (blank,) = BLANK.findall(fact.answer)
    if blank in NAMES:
        return str(blank)
    return "number" if RANGE.fullmatch(blank) else "word"


def _question(world: World, fact: Fact, name: str) -> str:
    return world.pick(fact.questions).replace("{name}", name)
