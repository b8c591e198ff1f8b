"""The kinds of things in the demo's world, read from `prose/`: one file per kind, one template per line."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import LiteralScalarString

from falcon_job.errors import first_line
from tools.demo.templates import Answer, Aside, Name, Opening, Question, Sentence, Title

PROSE = Path(__file__).parent / "prose"
ORDER = (
    "town",
    "company",
    "expedition",
    "machine",
    "scientist",
    "bridge",
    "festival",
    "ship",
    "island",
    "musician",
    "newspaper",
    "museum",
)
"""Every file of `prose/`. The bytes of the dataset depend on this order."""
YAML_FIX = "indent as in the other files, write | before a block, and put values that start with [ or { in quotes"

T = TypeVar("T")


class ProseError(click.ClickException):
    """A file of `prose/` needs a fix. Each line of the message gives the file, the line, the problem and the fix."""


def _split(block: Any) -> tuple[str, ...]:
    if not isinstance(block, LiteralScalarString):
        raise ValueError("must be a block: write | after the colon, and one sentence per line below it")
    return tuple(line.strip() for line in block.split("\n") if line.strip())


def _not_empty(items: tuple[T, ...]) -> tuple[T, ...]:
    if not items:
        raise ValueError("empty: add at least one item")
    return items


Some = Annotated[tuple[T, ...], AfterValidator(_not_empty)]
Lines = Annotated[Some[T], BeforeValidator(_split)]


class Part(BaseModel):
    """A part of a file. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Fact(Part):
    """One thing to know."""

    label: str
    """What a list of facts calls it."""
    answer: Answer
    sentences: Lines[Sentence]
    """Each states the fact."""
    questions: Lines[Question]
    """Each asks for this fact and for no other."""


class Kind(Part):
    """Things of one sort."""

    title: Title
    """The title of an article about some of them."""
    name: Name
    """The name of one of them."""
    openings: Lines[Opening]
    """First sentences of a passage."""
    facts: Some[Fact]
    """In the order in which a passage states them."""
    asides: Lines[Aside]
    """Sentences with blanks of the same sorts as the answers. They answer none of the questions."""


@cache
def kinds() -> tuple[Kind, ...]:
    """Read all kinds.

    Raises:
        ProseError: a file needs a fix.
    """
    return tuple(read_kind(PROSE / f"{name}.yaml") for name in ORDER)


def read_kind(path: Path) -> Kind:
    """Read and check one file.

    Raises:
        ProseError: the file needs a fix.
    """
    content = _load(path)
    try:
        return Kind.model_validate(content)
    except ValidationError as error:
        problems = [f"{path}:{_line(content, problem['loc'])}: {_explain(dict(problem))}" for problem in error.errors()]
    raise ProseError("\n".join(problems))


def _load(path: Path) -> Any:
    try:
        return YAML().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProseError(f"{path}: missing: write it, or remove {path.stem!r} from ORDER in {__file__}") from None
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise ProseError(f"{path}:{line}: not UTF-8: save the file as UTF-8") from None
    except DuplicateKeyError as error:
        problem = error.problem.partition(" with value")[0]
        raise ProseError(f"{path}:{1 + error.problem_mark.line}: {problem}: remove one") from None
    except MarkedYAMLError as error:
        raise ProseError(f"{path}:{1 + error.problem_mark.line}: {error.problem}: {YAML_FIX}") from None
    except YAMLError as error:
        raise ProseError(f"{path}: {first_line(error)}: remove it") from None


def _line(content: Any, place: tuple[int | str, ...]) -> int:
    """Return the number of the line at `place`, or of the part that should have it."""
    line = 1
    for step in place:
        if isinstance(content, LiteralScalarString):
            return line + [i for i, text in enumerate(content.split("\n"), 1) if text.strip()][int(step)]
        if not isinstance(content, CommentedSeq) and step not in content:
            return line
        position = content.lc.item(step) if isinstance(content, CommentedSeq) else content.lc.key(step)
        line, content = 1 + position[0], content[step]
    return line


def _explain(problem: dict[str, Any]) -> str:
    """Return the key, the problem and the fix."""
    place = problem["loc"]
    keys = ", ".join((Fact if len(place) > 1 and place[0] == "facts" else Kind).model_fields)
    texts = {
        "extra_forbidden": f"unknown key: use {keys}",
        "missing": "missing: add it",
        "model_type": f"must have the keys {keys}",
        "string_type": "must be text: put it in quotes",
        "tuple_type": "must be a list: start each item with a dash",
    }
    key = next((step for step in reversed(place) if isinstance(step, str)), "the file")
    return f"{key}: {texts.get(problem['type'], problem['msg'].removeprefix('Value error, '))}"
