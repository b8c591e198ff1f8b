"""Windows of a long passage: they fit, cover, overlap by half, and hold what is short enough whole."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.qa.prompt import TEMPLATES
from falcon_job.qa.windows import Window, cut_windows
from falcon_job.tokens.encoder import PromptEncoder
from tests.made_tokenizers import made

AROUND = 4


def count(text: str) -> int:
    """As many tokens as letters, and those of the prompt around them: additive, so that halves are exact."""
    return AROUND + sum(not character.isspace() for character in text)


words = st.text("abcd", min_size=1, max_size=6)
gaps = st.sampled_from([" ", "  ", "\n", "\n\n", "\t"])


def passages_of(fewest: int) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(words, gaps), min_size=fewest, max_size=60)
    return pairs.map(lambda pairs: "".join(word + gap for word, gap in pairs))


passages, sizes = passages_of(1), st.integers(AROUND + 6, AROUND + 60)
long_passages, small_sizes = passages_of(30), st.integers(AROUND + 6, AROUND + 29)
"""Any of these texts is longer than any of these windows, which hold any word."""


def spans(text):
    """Each word of a text, from first character to last."""
    place = 0
    for word in text.split():
        start = text.index(word, place)
        place = start + len(word)
        yield start, place


@given(text=passages, size=sizes)
def test_a_text_that_fits_is_one_window_of_all_of_it(text, size):
    windows = cut_windows(text, size, count)
    assert (windows == [Window(0, len(text))]) == (count(text) <= size)


@given(text=passages, size=sizes)
def test_every_window_fits(text, size):
    assert all(count(text[w.start : w.stop]) <= size for w in cut_windows(text, size, count))


@given(text=passages, size=sizes)
def test_every_word_lies_whole_in_a_window(text, size):
    windows = cut_windows(text, size, count)
    for start, stop in spans(text):
        assert any(window.holds(start, stop) for window in windows)


@given(text=long_passages, size=small_sizes)
def test_windows_begin_and_end_with_words(text, size):
    starts, stops = zip(*spans(text), strict=True)
    for window in cut_windows(text, size, count):
        assert window.start in starts
        assert window.stop in stops


@given(text=long_passages, size=small_sizes)
def test_no_window_but_the_last_could_take_another_word(text, size):
    for window in cut_windows(text, size, count)[:-1]:
        following = min(stop for start, stop in spans(text) if start >= window.stop)
        assert count(text[window.start : following]) > size


@given(text=long_passages, size=small_sizes)
def test_each_window_starts_half_a_window_after_the_last(text, size):
    windows = cut_windows(text, size, count)
    starts = [start for start, _ in spans(text)]
    for window, following in pairwise(windows):
        inside = [start for start in starts if window.start <= start < window.stop]
        assert following.start == inside[-1] or len(inside) == 1 or following.start in inside
        half = (count(text[window.start : window.stop]) - AROUND) / 2
        before = starts[starts.index(following.start) - 1]
        if before != window.start:  # a window goes on by a word at least
            assert count(text[window.start : before]) - AROUND < half
        if len(inside) > 1 and following.start != inside[-1]:  # and shares a word at least
            assert count(text[window.start : following.start]) - AROUND >= half


@given(text=long_passages, size=small_sizes)
def test_a_span_of_at_most_half_a_window_lies_whole_in_one(text, size):
    windows = cut_windows(text, size, count)
    smallest = min(count(text[w.start : w.stop]) - AROUND for w in windows[:-1])
    borders = list(spans(text))
    for i, (start, _) in enumerate(borders):
        for _, stop in borders[i:]:
            if count(text[start:stop]) - AROUND <= smallest / 2:
                assert any(window.holds(start, stop) for window in windows), text[start:stop]


def test_windows_of_equal_words_overlap_by_exactly_half():
    text = " ".join(["ab"] * 20)  # 40 tokens
    windows = cut_windows(text, AROUND + 16, count)
    assert [(w.start // 3, (w.stop + 1) // 3) for w in windows] == [(0, 8), (4, 12), (8, 16), (12, 20)]


def test_a_word_longer_than_a_window_is_cut_between_characters():
    text = f"ab {'c' * 30} de"
    windows = cut_windows(text, AROUND + 10, count)
    assert all(count(text[w.start : w.stop]) <= AROUND + 10 for w in windows)
    assert windows[-1].stop == len(text)
    for window, following in pairwise(windows):
        assert window.start < following.start < window.stop < following.stop


def test_where_not_even_a_character_fits_it_says_so():
    with pytest.raises(ValueError, match="a single character of the passage takes more than 4 tokens"):
        cut_windows("ab cd", AROUND, count)


@pytest.mark.parametrize("kind", ["falcon-tiny", "llama-2", "llama-3", "word pieces"])
@given(
    text=st.lists(
        st.sampled_from(
            ["harbour", "1873", "4.5", '"We', "caf\u00e9s,", "\u6e2f\u306f", "antidisestablishment", "a", "\n"]
        ),
        min_size=1,
        max_size=120,
    )
    .map(" ".join)
    .filter(str.strip),
    size=st.integers(32, 90),
)
def test_with_real_tokenizers_windows_fit_cover_and_are_full(kind, text, size):
    tokenizer = made(kind)
    encoder = PromptEncoder(tokenizer, TEMPLATES["squad-v2"], tokenizer.pad_token_id)
    windows = cut_windows(text, size, lambda piece: len(encoder.shared([piece])[0]))
    lengths = [len(encoder.shared([text[w.start : w.stop]])[0]) for w in windows]
    assert max(lengths) <= size
    assert all(any(window.holds(*span) for window in windows) for span in spans(text))
    for window in windows[:-1]:
        following = min(stop for start, stop in spans(text) if start >= window.stop)
        assert len(encoder.shared([text[window.start : following]])[0]) > size
