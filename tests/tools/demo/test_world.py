"""Each invented word belongs to one share, and equal seeds give equal draws."""

import re
from itertools import islice

import pytest

from tools.demo.world import SHARES, World, share_of


def drawn(world, count=200):
    return [(world.person(), world.surname(), world.place()) for _ in range(count)]


@pytest.mark.parametrize("share", SHARES)
def test_a_share_draws_only_its_own_words(share):
    words = {word for names in drawn(World(1, share)) for name in names for word in name.split()}

    assert {share_of(word) for word in words} == {share}


def test_the_shares_divide_a_hundred():
    assert sorted(place for places in SHARES.values() for place in places) == list(range(100))


def test_only_equal_seeds_draw_equal_names():
    assert drawn(World(1, "dev")) == drawn(World(1, "dev")) != drawn(World(2, "dev"))


def test_no_name_repeats_until_all_have_appeared():
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
