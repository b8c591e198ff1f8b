"""What a kind of thing is: how passages about it open, what there is to know, and how that is told and asked.

`{name}` is the thing, `{region}` where it is, `{answer}` what a fact is about. Blanks such as `[person]`, `[surname]`,
`[place]`, `[1800-1890]` or `[oak|pine]` are drawn when a passage is written.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One thing to know.

    Attributes:
        label: what it is called in a list of facts.
        answer: with one kind of blank.
        sentences: that state it; each has the answer once.
        questions: that ask for it and for no other fact; each names the thing.
    """

    label: str
    answer: str
    sentences: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """Things of one sort.

    Attributes:
        title: of an article about some of them.
        name: of one of them.
        openings: first sentences of a passage.
        facts: in telling order.
        asides: sentences with blanks of the same sorts as the answers, that answer none of the questions.
    """

    title: str
    name: str
    openings: tuple[str, ...]
    facts: tuple[Fact, ...]
    asides: tuple[str, ...]
