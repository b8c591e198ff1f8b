"""Names of the invented world belong to one share each, and chance is the same everywhere."""

import re
from itertools import islice

import pytest

from tools.demo.world import SHARES, World, share_of


def drawn(world, count=200):
    return [(world.person(), world.surname(), world.place()) for _ in range(count)]


@pytest.mark.parametrize("share", SHARES)
def test_every_invented_word_belongs_to_the_share_that_names_it(share):
    words = {word for names in drawn(World(1, share)) for name in names for word in name.split()}

    assert {share_of(word) for word in words} == {share}


def test_shares_are_parts_of_a_hundred():
    assert sorted(place for places in SHARES.values() for place in places) == list(range(100))


def test_equal_seeds_draw_equal_names_and_others_do_not():
    assert drawn(World(1, "dev")) == drawn(World(1, "dev")) != drawn(World(2, "dev"))


def test_no_name_comes_twice_before_all_have_come():
    world = World(1, "train")
    places = list(islice(iter(world.place, None), 1000))

    assert len(set(places)) == 1000


@pytest.mark.parametrize(
    ("template", "pattern"),
    [
        ("no blank", "no blank"),
        ("in [1800-1809].", r"in 180\d\."),
        ("[oak|pine] and [oak|pine]", r"(oak|pine) and (oak|pine)"),
        ("[person]", r"[A-Z]\w+ [A-Z]\w+"),
        ("Mount [place]", r"Mount [A-Z]\w+"),
        ("[a well-known inn|a yard]", "a well-known inn|a yard"),
    ],
)
def test_blanks_are_filled(template, pattern):
    assert re.fullmatch(pattern, World(3, "dev").fill(template))
