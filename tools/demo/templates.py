"""What a line of prose may hold, by its role.

`{name}` stands for a thing, `{region}` for where it is, and `{answer}` for the answer to a fact. Blanks such as
`[person]`, `[1800-1890]` or `[oak|pine]` are filled at random when a passage is written.
"""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

NAMES = ("person", "surname", "place")
"""Blanks that are filled with an invented name."""
BLANK = re.compile(r"\[(.*?)\]")
FIELD = re.compile(r"{(.*?)}")
RANGE = re.compile(r"(\d+)-(\d+)")


def _fields(*known: str) -> AfterValidator:
    """Allow only the fields in `known`."""
    fix = f"use {' or '.join(f'{{{field}}}' for field in known)}" if known else "remove it"

    def check(template: str) -> str:
        for field in FIELD.findall(template):
            if field not in known:
                raise ValueError(f"{{{field}}} is unknown here: {fix}")
        return template

    return AfterValidator(check)


def _must(requirement: str, holds: Callable[[str], bool]) -> AfterValidator:
    """Allow only templates for which `holds` is true."""

    def check(template: str) -> str:
        if not holds(template):
            raise ValueError(f"must {requirement}")
        return template

    return AfterValidator(check)


def _check_blanks(template: str) -> str:
    for blank in BLANK.findall(template):
        if not _is_blank(blank):
            names = ", ".join(f"[{name}]" for name in NAMES)
            raise ValueError(f"[{blank}] is unknown: use {names}, a range like [1800-1890] or options like [oak|pine]")
    return template


def _is_blank(blank: str) -> bool:
    if numbers := RANGE.fullmatch(blank):
        return int(numbers[1]) < int(numbers[2])
    return blank in NAMES or ("|" in blank and all(blank.split("|")) and not set("[{}") & set(blank))


def _has_whole_brackets(template: str) -> bool:
    return not set("[]{}|") & set(FIELD.sub("", BLANK.sub("", template)))


BLANKS = AfterValidator(_check_blanks)
WHOLE = _must("have [, ] and | only in blanks, { and } only in fields", _has_whole_brackets)
ONE_BLANK = _must("have exactly one [blank]", lambda template: len(BLANK.findall(template)) == 1)
NO_BLANK = _must("have no [blank]", lambda template: not BLANK.search(template))
ONE_ANSWER = _must("have {answer} exactly once", lambda template: template.count("{answer}") == 1)
ONE_NAME = _must("have {name} exactly once", lambda template: template.count("{name}") == 1)
STATES = _must("end with . or !", lambda template: template.endswith((".", "!")))
ASKS = _must("end with ?", lambda template: template.endswith("?"))

Title = Annotated[str, _fields("region"), NO_BLANK, WHOLE]
Name = Annotated[str, _fields(), BLANKS, WHOLE]
Answer = Annotated[str, _fields(), BLANKS, WHOLE, ONE_BLANK]
Opening = Annotated[str, _fields("name", "region"), BLANKS, WHOLE, STATES]
Sentence = Annotated[str, _fields("name", "region", "answer"), BLANKS, WHOLE, ONE_ANSWER, STATES]
Question = Annotated[str, _fields("name"), NO_BLANK, WHOLE, ONE_NAME, ASKS]
Aside = Annotated[str, _fields("name", "region"), BLANKS, WHOLE, STATES]
