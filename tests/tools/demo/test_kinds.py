"""Each kind is read from its file, and a bad file gives an error that says what to fix."""

import pytest
from click.testing import CliRunner

from tools.demo.dataset import main
from tools.demo.kinds import ORDER, PROSE, YAML_FIX, ProseError, kinds, read_kind

GOOD = """\
title: "Bridges of {region}"
name: "[place] Bridge"

openings: |
  The {name} is old: it has a date on it # and a mark.

  The {name} has [two|three] arches.

facts:
  - label: River
    answer: "the river [place]"
    sentences: |
      The bridge crosses {answer}.
    questions: |
      What does the {name} cross?

  - label: Year
    answer: "[1800-1890]"
    sentences: |
      It was opened in {answer}.
      Open since {answer}!
    questions: |
      When was the {name} opened?

asides: |
  A waltz about it was printed in [1881-1899].
"""
KIND = "title, name, openings, facts, asides"
FACT = "label, answer, sentences, questions"
BLANKS = "use [person], [surname], [place], a range like [1800-1890] or options like [oak|pine]"
BLOCK_FIX = "write | after the colon, and one sentence per line below it"
FACTS = GOOD[GOOD.index("  - label") : GOOD.index("\nasides")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bridge.yaml"


def problem_of(path, content):
    """Read a bad file, and return its one-line error without the path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProseError) as caught:
        read_kind(path)
    (line,) = str(caught.value).split("\n")
    assert line.startswith(f"{path}:")
    return line.removeprefix(f"{path}:")


def changed(old, new):
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_order_names_every_file():
    assert sorted(path.name for path in PROSE.glob("*.y*ml")) == sorted(f"{name}.yaml" for name in ORDER)


def test_a_block_holds_one_template_per_line(path):
    path.write_text(GOOD)
    kind = read_kind(path)
    assert kind.title == "Bridges of {region}"
    assert kind.openings == (
        "The {name} is old: it has a date on it # and a mark.",
        "The {name} has [two|three] arches.",
    )
    assert [fact.label for fact in kind.facts] == ["River", "Year"]
    assert kind.facts[1].sentences == ("It was opened in {answer}.", "Open since {answer}!")


def test_windows_line_endings_make_no_difference(tmp_path):
    for name, content in (("unix", GOOD), ("windows", GOOD.replace("\n", "\r\n"))):
        (tmp_path / name).write_bytes(content.encode())
    assert read_kind(tmp_path / "windows") == read_kind(tmp_path / "unix")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("name:", "names: x\nname:", f"2: names: unknown key: use {KIND}"),
        ('    answer: "[1', '    hint: x\n    answer: "[1', f"18: hint: unknown key: use {FACT}"),
    ],
)
def test_an_unknown_key_is_named(path, old, new, problem):
    assert problem_of(path, changed(old, new)) == problem


@pytest.mark.parametrize(
    ("left_out", "problem"),
    [
        ('name: "[place] Bridge"\n', "1: name: missing: add it"),
        ('    answer: "[1800-1890]"\n', "17: answer: missing: add it"),
        (FACTS, "9: facts: must be a list: start each item with a dash"),
        ("facts:\n" + FACTS, "1: facts: missing: add it"),
        ("      The bridge crosses {answer}.\n", "12: sentences: empty: add at least one item"),
    ],
)
def test_a_missing_part_is_named(path, left_out, problem):
    assert problem_of(path, changed(left_out, "")) == problem


@pytest.mark.parametrize("blank", ["[persn]", "[two|]", "[1900-1800]", "[1900-]", "[two]", "[[two|three]", "[]"])
def test_an_unknown_blank_is_named(path, blank):
    found = problem_of(path, changed("[two|three]", blank))
    assert found == f"7: openings: {blank} is unknown: {BLANKS}"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[two|three]", "{two}", "7: openings: {two} is unknown here: use {name} or {region}"),
        ("[two|three]", "{answer}", "7: openings: {answer} is unknown here: use {name} or {region}"),
        ("of {region}", "of {name}", "1: title: {name} is unknown here: use {region}"),
        ("[place] Bridge", "{name} Bridge", "2: name: {name} is unknown here: remove it"),
    ],
)
def test_a_field_in_the_wrong_place_is_named(path, old, new, problem):
    assert problem_of(path, changed(old, new)) == problem


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("of {region}", "of [place]", "1: title: must have no [blank]"),
        ("[two|three]", "[two|three", "7: openings: must have [, ] and | only in blanks, { and } only in fields"),
        ("arches.", "arches", "7: openings: must end with . or !"),
        ("the river [place]", "the river", "11: answer: must have exactly one [blank]"),
        ("since {answer}", "since long ago", "21: sentences: must have {answer} exactly once"),
        ("since {answer}", "since {answer} or {answer}", "21: sentences: must have {answer} exactly once"),
        ("What does the {name}", "What does it", "15: questions: must have {name} exactly once"),
        ("What does the {name}", "What [place] does the {name}", "15: questions: must have no [blank]"),
        ("opened?", "opened.", "23: questions: must end with ?"),
    ],
)
def test_a_broken_rule_is_named(path, old, new, problem):
    assert problem_of(path, changed(old, new)) == problem


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"[1800-1890]"', "[1800-1890]", "18: answer: must be text: put it in quotes"),
        ('"[1800-1890]"', "[2-9] tons", f"18: expected <block end>, but found '<scalar>': {YAML_FIX}"),
        ("  The {name} has", " The {name} has", f"7: expected <block end>, but found '<scalar>': {YAML_FIX}"),
        ("name:", "title: x\nname:", '2: found duplicate key "title": remove one'),
        ("asides: |", "asides: >", f"25: asides: must be a block: {BLOCK_FIX}"),
        ("is old", "is \a old", " unacceptable character #x0007: special characters are not allowed: remove it"),
    ],
)
def test_bad_yaml_is_explained(path, old, new, problem):
    assert problem_of(path, changed(old, new)) == problem


@pytest.mark.parametrize("content", ["", "a sentence\n", "- a list\n"])
def test_an_error_lists_the_keys_of_a_file(path, content):
    assert problem_of(path, content) == f"1: the file: must have the keys {KIND}"


def test_an_error_lists_the_keys_of_a_fact(path):
    assert problem_of(path, changed(FACTS, "  - River\n")) == f"10: facts: must have the keys {FACT}"


def test_a_kind_without_facts_is_refused(path):
    assert problem_of(path, changed("facts:\n" + FACTS, "facts: []\n")) == "9: facts: empty: add at least one item"


def test_facts_without_dashes_are_refused(path):
    assert problem_of(path, changed(FACTS, "  River: x\n")) == "9: facts: must be a list: start each item with a dash"


def test_a_file_that_is_not_utf8_is_refused(path):
    content = GOOD.replace("arches", "\xe9tages").encode("latin-1")
    assert problem_of(path, content) == "7: not UTF-8: save the file as UTF-8"


def test_a_missing_file_is_named(path):
    with pytest.raises(
        ProseError, match=r"bridge\.yaml: missing: write it, or remove 'bridge' from ORDER in .*kinds\.py"
    ):
        read_kind(path)


def test_each_problem_gets_its_own_line(path):
    path.write_text(changed("arches.", "arches").replace("opened?", "opened"))
    with pytest.raises(ProseError) as caught:
        read_kind(path)
    assert str(caught.value).split("\n") == [
        f"{path}:7: openings: must end with . or !",
        f"{path}:23: questions: must end with ?",
    ]


def test_a_writer_sees_the_error_without_a_traceback(path, monkeypatch):
    monkeypatch.setattr("tools.demo.kinds.PROSE", path.parent)
    monkeypatch.setattr("tools.demo.kinds.ORDER", ("bridge",))
    path.write_text(changed("arches.", "arches"))
    kinds.cache_clear()
    result = CliRunner().invoke(main, [str(path.parent / "out")])
    kinds.cache_clear()
    assert result.exit_code == 1
    assert result.output == f"Error: {path}:7: openings: must end with . or !\n"
