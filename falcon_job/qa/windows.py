"""Windows: overlapping parts of a passage that is too long for `preprocess.max_tokens`."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Characters [start, stop) of a passage."""

    start: int
    stop: int

    def holds(self, start: int, stop: int) -> bool:
        """Tell whether characters [start, stop) of the passage lie in the window."""
        return self.start <= start and stop <= self.stop


def cut_windows(text: str, max_tokens: int, count_tokens: Callable[[str], int]) -> list[Window]:
    """Split a text at word boundaries into windows of at most `max_tokens` tokens, with a stride of half a window.

    Any span of at most half a window is therefore complete in one of them. With one token per word and windows of 4
    tokens, "a b c d e f g h" gives "a b c d", "c d e f" and "e f g h". A text that fits is one window. A word longer
    than a window is split between characters.

    Args:
        text: the passage.
        max_tokens: the most tokens in a window, as counted by `count_tokens`.
        count_tokens: returns the number of tokens of a part of the text, including those that the prompt adds to it.

    Raises:
        ValueError: a single character does not fit into a window.
    """
    if count_tokens(text) <= max_tokens:
        return [Window(0, len(text))]
    pieces = list(_pieces(text, lambda word: count_tokens(word) <= max_tokens))

    def count(first: int, stop: int) -> int:
        return count_tokens(text[pieces[first].start : pieces[stop - 1].stop])

    around = count_tokens("")
    windows: list[Window] = []
    first = 0
    while True:
        stop = _longest_fit(count, first, len(pieces), max_tokens)
        windows.append(Window(pieces[first].start, pieces[stop - 1].stop))
        if stop == len(pieces):
            return windows
        first = _half_way(count, first, stop, (count(first, stop) + around) / 2)


def _pieces(text: str, fits: Callable[[str], bool]) -> Iterator[Window]:
    """Yield the words of a text, and the characters of words that do not fit."""
    for word in _words(text):
        if fits(text[word.start : word.stop]):
            yield word
        else:
            yield from (Window(i, i + 1) for i in range(word.start, word.stop))


def _words(text: str) -> list[Window]:
    words: list[Window] = []
    start = None
    for i, character in enumerate([*text, " "]):
        if character.isspace():
            if start is not None:
                words.append(Window(start, i))
            start = None
        elif start is None:
            start = i
    return words


def _longest_fit(count: Callable[[int, int], int], first: int, end: int, max_tokens: int) -> int:
    """Return the end (exclusive) of the longest run of pieces from `first` that fits."""
    length = 1
    while first + length < end and count(first, first + length) <= max_tokens:
        length *= 2
    stops = range(first + 1, min(first + length, end) + 1)
    stop = first + bisect_right(stops, max_tokens, key=lambda stop: count(first, stop))
    if stop == first:
        raise ValueError(f"a single character of the passage takes more than {max_tokens} tokens")
    return stop


def _half_way(count: Callable[[int, int], int], first: int, stop: int, half: float) -> int:
    """Return the first piece that starts at least `half` tokens after `first`, but at most the last before `stop`."""
    starts = range(first + 1, stop - 1)
    return first + 1 + bisect_left(starts, half, key=lambda start: count(first, start))
