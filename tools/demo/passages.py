"""Write passages about invented things, and questions about the passages."""

from collections.abc import Sequence
from dataclasses import dataclass

from tools.demo.kinds import Fact, Kind
from tools.demo.templates import BLANK, NAMES, RANGE
from tools.demo.world import World

STATED = (6, 8)
"""The fewest and the most facts that a passage states."""
ASIDES = (1, 3)
"""The fewest and the most asides in a passage."""


@dataclass(frozen=True)
class Statement:
    """A fact that a passage states: its answer, its sentence, and the position of the answer in the passage."""

    fact: Fact
    answer: str
    sentence: str
    start: int


@dataclass(frozen=True)
class Passage:
    """A passage, the facts that it states, and the facts that it leaves open."""

    kind: Kind
    name: str
    text: str
    stated: tuple[Statement, ...]
    open: tuple[Fact, ...]


@dataclass(frozen=True)
class Asked:
    """A question and the statement that answers it, or None if the passage has no answer."""

    question: str
    statement: Statement | None


def write_passage(world: World, kind: Kind, name: str, region: str) -> Passage:
    """State some facts about one thing, in order, with asides between them."""
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
    """Return questions about a passage, in random order.

    A third of the unanswerable questions ask for a fact that the passage states, but about one of `others`. The rest
    ask for a fact that the passage leaves open, if possible one with the same sort of answer as a stated fact. A
    passage that states or leaves open too few facts gets fewer questions.
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
    """Return the sort of a fact's answer: `person`, `surname`, `place`, `number` or `word`."""
    (blank,) = BLANK.findall(fact.answer)
    if blank in NAMES:
        return str(blank)
    return "number" if RANGE.fullmatch(blank) else "word"


def _question(world: World, fact: Fact, name: str) -> str:
    return world.pick(fact.questions).replace("{name}", name)
