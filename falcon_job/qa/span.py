"""Extractive answers: the part of a passage that is nearest to an answer in the model's own words."""

import re
import unicodedata
from collections import Counter

from falcon_job.qa.metric import normalize_answer

_CLAUSE_MARKS = frozenset(".,;:!?\"'\N{HORIZONTAL ELLIPSIS}")
_BRACKETS_AND_QUOTES = frozenset({"Ps", "Pe", "Pi", "Pf"})


def nearest_span(answer: str, passage: str) -> str:
    """Return the span of `passage` that is nearest to `answer`; "" if they share no word.

    This is the first of these that exists: the answer itself; its first occurrence, ignoring case; the run of whole
    words with the best token F1 against the answer (as in `falcon_job.qa.metric`), without punctuation around it. Of
    equally good runs, the earliest wins, then the shortest. Example: "Duke Robert of Normandy" in "the Duke of
    Normandy" gives "Duke of Normandy".
    """
    answer = answer.strip()
    if answer in passage:
        return answer
    if found := re.search(re.escape(answer), passage, re.IGNORECASE):
        return found.group()
    return _best_run(Counter(normalize_answer(answer).split()), passage)


def _best_run(answer: Counter[str], passage: str) -> str:
    """Return the run of whole words with the best F1 against the tokens of the answer.

    Only runs that begin and end with a word of the answer are compared: a longer run would share no more tokens.
    """
    words = list(re.finditer(r"\S+", passage))
    tokens = [normalize_answer(word.group()).split() for word in words]
    shared = [index for index, names in enumerate(tokens) if any(name in answer for name in names)]
    ends = _token_ends(tokens)
    best, best_span = 0.0, (0, 0)
    for place, first in enumerate(shared):
        left, same = answer.copy(), 0
        begin = ends[first] - len(tokens[first])
        for last in shared[place:]:
            length = ends[last] - begin + answer.total()
            if 2 * answer.total() <= best * length:
                break  # a longer run cannot be better either
            for name in tokens[last]:
                same += left[name] > 0
                left[name] -= 1
            if 2 * same / length > best:
                best, best_span = 2 * same / length, (words[first].start(), words[last].end())
    return _strip_punctuation(passage[slice(*best_span)])


def _token_ends(tokens: list[list[str]]) -> list[int]:
    """Return, for each word, the number of tokens up to and including it."""
    ends, total = [], 0
    for names in tokens:
        total += len(names)
        ends.append(total)
    return ends


def _strip_punctuation(text: str) -> str:
    kept = [index for index, char in enumerate(text) if not _is_outer(char)]
    return text[kept[0] : kept[-1] + 1] if kept else ""


def _is_outer(char: str) -> bool:
    return char in _CLAUSE_MARKS or unicodedata.category(char) in _BRACKETS_AND_QUOTES
