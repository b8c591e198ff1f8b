"""Windows: how a passage that is too long for `preprocess.max_tokens` is cut."""

from collections.abc import Callable, Sequence
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
    """Cut a text into windows of at most `max_tokens` tokens, on word borders, each half overlapping the last.

    One window over all of the text where it fits. Each following window starts half a window further, so that a span of
    at most half a window lies whole in one of them.

    Args:
        text: the passage.
        max_tokens: longest window, in tokens as `count_tokens` counts them.
        count_tokens: tokens of a piece of text, in its place in the prompt.

    Raises:
        ValueError: a single word is longer than `max_tokens`.
    """
    if count_tokens(text) <= max_tokens:
        return [Window(0, len(text))]
    words = _words(text)
    costs = [count_tokens(f" {text[word.start : word.stop]}") for word in words]
    windows: list[Window] = []
    first = 0
    while True:
        stop = _longest_fit(text, words, costs, first, max_tokens, count_tokens)
        windows.append(Window(words[first].start, words[stop - 1].stop))
        if stop == len(words):
            return windows
        first = _half_way(costs, first, stop)


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


def _longest_fit(
    text: str,
    words: Sequence[Window],
    costs: Sequence[int],
    first: int,
    max_tokens: int,
    count_tokens: Callable[[str], int],
) -> int:
    """Return the end of the longest run of words from `first` that fits: word costs guess, a count decides."""
    stop, total = first, 0
    while stop < len(words) and total + costs[stop] <= max_tokens:
        total += costs[stop]
        stop += 1
    while stop > first and count_tokens(text[words[first].start : words[stop - 1].stop]) > max_tokens:
        stop -= 1
    if stop == first:
        word = text[words[first].start : words[first].stop]
        raise ValueError(f"the word {word[:40]!r} at character {words[first].start} is longer than {max_tokens} tokens")
    return stop


def _half_way(costs: Sequence[int], first: int, stop: int) -> int:
    """Return the first word past half the tokens of words [first, stop)."""
    half = sum(costs[first:stop]) / 2
    total, i = 0, first
    while i < stop - 1 and total < half:
        total += costs[i]
        i += 1
    return max(i, first + 1)
