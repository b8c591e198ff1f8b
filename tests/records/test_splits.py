import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.errors import InputError
from falcon_job.records.passage import Passage, Question
from falcon_job.records.splits import split_validation, spread, take_passages


def passages(*layout: tuple[str, int]) -> list[Passage]:
    """Passages of an article with so many questions, each with its own text and ids."""
    return [
        Passage(article, f"text {i}", tuple(Question(f"{i}-{j}", "Q?", ()) for j in range(count)))
        for i, (article, count) in enumerate(layout)
    ]


layouts = st.lists(
    st.tuples(st.sampled_from([f"article {i}" for i in range(14)]), st.integers(1, 9)), min_size=2, max_size=40
).map(lambda layout: passages(*layout))
fractions = st.floats(0.01, 0.9)
seeds = st.integers(0, 5)


@given(layout=layouts, fraction=fractions, seed=seeds)
def test_each_passage_is_in_one_part_in_the_order_of_the_file(layout, fraction, seed):
    train, validation = map(list, split_validation(layout, fraction, seed))
    assert train == [passage for passage in layout if passage in train]
    assert validation == [passage for passage in layout if passage in validation]
    assert len(train) + len(validation) == len(layout)
    assert train
    assert validation


@given(layout=layouts, fraction=fractions, seed=seeds)
def test_no_article_is_in_both_parts_where_there_are_ten(layout, fraction, seed):
    articles = {passage.article for passage in layout}
    train, validation = map(list, split_validation(layout, fraction, seed))
    shared = {passage.article for passage in train} & {passage.article for passage in validation}
    if len(articles) >= 10:
        assert not shared
        held_out = len({passage.article for passage in validation})
        assert held_out == min(max(1, round(fraction * len(articles))), len(articles) - 1)
    else:
        assert len(validation) == min(max(1, round(fraction * len(layout))), len(layout) - 1)


def test_nine_articles_are_split_by_passage_ten_by_article():
    nine = passages(*[(f"a{i % 9}", 1) for i in range(90)])
    train, validation = map(list, split_validation(nine, 0.5, 0))
    assert {p.article for p in train} & {p.article for p in validation}
    ten = passages(*[(f"a{i % 10}", 1) for i in range(100)])
    train, validation = map(list, split_validation(ten, 0.5, 0))
    assert not {p.article for p in train} & {p.article for p in validation}
    assert len(train) == len(validation) == 50


def test_closed_book_is_split_by_question():
    pairs = [Passage("", None, (Question(str(i), "Q?", ()),)) for i in range(20)]
    train, validation = map(list, split_validation(pairs, 0.25, 3))
    assert (len(train), len(validation)) == (15, 5)


@given(layout=layouts, seed=seeds)
def test_a_fraction_of_zero_holds_nothing_out(layout, seed):
    assert split_validation(layout, 0, seed) == (layout, [])


def test_a_single_passage_cannot_be_split():
    with pytest.raises(InputError, match=r"only one passage.*preprocess\.validation_fraction to 0") as caught:
        split_validation(passages(("a", 3)), 0.1, 0)
    assert caught.value.exit_code == 2
    assert len(split_validation(passages(("a", 3)), 0, 0)[0]) == 1


def test_the_seed_draws_the_validation_split():
    layout = passages(*[("a", 1)] * 50)
    drawn = [tuple(p.text for p in split_validation(layout, 0.2, seed)[1]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@given(layout=layouts, limit=st.integers(1, 120), seed=seeds)
def test_a_limit_takes_whole_passages_in_file_order(layout, limit, seed):
    chosen = list(take_passages(layout, limit, seed))
    assert chosen == [passage for passage in layout if passage in chosen]
    total = sum(len(passage.questions) for passage in chosen)
    assert total <= limit or len(chosen) == 1
    left = [passage for passage in layout if passage not in chosen]
    assert chosen
    assert all(total + len(passage.questions) > limit for passage in left)


def test_no_limit_takes_all():
    layout = passages(("a", 2), ("b", 3))
    assert list(take_passages(layout, None, 0)) == layout
    assert list(take_passages(layout, 5, 0)) == layout


def test_the_seed_draws_the_subset():
    layout = passages(*[("a", 2)] * 50)
    drawn = [[p.text for p in list(take_passages(layout, 20, seed))] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 10
    assert drawn[0] != [passage.text for passage in layout[:10]]


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=60), limit=st.none() | st.integers(1, 200))
def test_a_spread_goes_over_all_of_a_file_within_its_limit(counts, limit):
    chosen = spread(counts, limit)
    assert chosen == sorted(set(chosen))
    total = sum(counts[i] for i in chosen)
    if limit is None or limit >= sum(counts):
        assert chosen == list(range(len(counts)))
    else:
        assert total <= limit or len(chosen) == 1


def test_a_spread_is_even():
    assert spread([1] * 100, 10) == list(range(9, 100, 10))


def test_spread_takes_nearly_all_that_the_limit_allows():
    ones = spread([1] * 1000, 999)
    halves = spread([3] * 100, 150)

    assert len(ones) == 999
    assert len(halves) == 50
    assert max(b - a for a, b in itertools.pairwise(halves)) == 2
    assert sum([3, 3, 3, 300, 3, 3][i] for i in spread([3, 3, 3, 300, 3, 3], 6)) == 6
    assert spread([9, 5], 2) == [1]
