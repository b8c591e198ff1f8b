"""An invented world: its names, and its random draws.

Each invented word (a given name, a surname or a place) belongs to exactly one share of the world, so no two shares have
a word in common. All draws use `Random.random`, the only method whose sequence Python guarantees for a seed.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Literal, TypeVar
from zlib import crc32

Share = Literal["pretraining", "train", "dev"]
SHARES: dict[Share, range] = {"pretraining": range(80), "train": range(80, 94), "dev": range(94, 100)}
"""The hundredths of all words that each share has."""

T = TypeVar("T")

STARTS = (
    "Al Ar Bel Ber Bran Cal Cor Dal Dor Drev El Eld Fal Fen Fir Gal Gar Glen Har Hol Ist Jor Kal Kel Kor Lan Lom "
    "Mal Mar Mor Nor Ol Or Pel Per Quor Rav Ros Sar Sil Sol Tal Tor Tren Ul Ver Vol Wes Yar Zel"
)
MIDDLES = "a am an ar e el en er i il in ir o ol on or u un"
PLACE_ENDS = (
    "bach bury by cester combe dale dorf fell field ford gate ham haven holm hurst ley mere minster mouth ness "
    "port stead thorpe ton vik wick worth zand"
)
SURNAME_ENDS = (
    "aby ane ardi bec den dahl eck ello emar enko etti ez idge ier immer inov is land lund man mann nik ova ovic "
    "quist rell sen ska son strom well wig"
)
GIVEN_STARTS = (
    "Ad Al Be Ca Ce Da De El Em Fi Fre Ga Gi Ha He Il In Jo Ju Ka Ki Le Lu Ma Mi Na Ni Or Pe Ro Sa Si Te To Ul Vi Wa"
)
GIVEN_ENDS = (
    "bina da dric gon ka la len lia lius mon na nara ne nek ra rah ran rell rik ris sander sin ta tha tin via vin "
    "vra xen ya zo"
)


def words(starts: str, ends: str) -> list[str]:
    """Return every word that consists of a start, an optional middle and an end."""
    middles = ("", *MIDDLES.split())
    return list(dict.fromkeys(map("".join, itertools.product(starts.split(), middles, ends.split()))))


def share_of(word: str) -> Share:
    """Return the share that an invented word belongs to."""
    place = crc32(word.encode()) % 100
    return next(share for share, places in SHARES.items() if place in places)


class World:
    """Draws names and numbers for one share."""

    def __init__(self, seed: int, share: Share) -> None:
        self._random = Random(seed)
        self._given, self._surnames, self._places = (
            self._endless([word for word in words(starts, ends) if share_of(word) == share])
            for starts, ends in ((GIVEN_STARTS, GIVEN_ENDS), (STARTS, SURNAME_ENDS), (STARTS, PLACE_ENDS))
        )

    def _endless(self, names: Sequence[str]) -> Iterator[str]:
        """Yield names in random order forever. No name repeats until all have appeared."""
        while True:
            yield from self.mixed(names)

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._random.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Return one of `options` at random."""
        return options[int(self._random.random() * len(options))]

    def mixed(self, items: Sequence[T]) -> list[T]:
        """Return `items` in random order."""
        return sorted(items, key=lambda _: self._random.random())

    def between(self, first: int, last: int) -> int:
        """Return a random whole number from `first` to `last`, both included."""
        return first + int(self._random.random() * (last - first + 1))

    def person(self) -> str:
        """Return a full name."""
        return f"{next(self._given)} {next(self._surnames)}"

    def surname(self) -> str:
        """Return a surname."""
        return next(self._surnames)

    def place(self) -> str:
        """Return the name of a place."""
        return next(self._places)

    def fill(self, template: str) -> str:
        """Return `template` with its blanks, such as `[person]`, `[1800-1890]` or `[oak|pine]`, filled at random."""
        head, opened, rest = template.partition("[")
        if not opened:
            return template
        blank, _, tail = rest.partition("]")
        return head + self._draw(blank) + self.fill(tail)

    def _draw(self, blank: str) -> str:
        makers: dict[str, Callable[[], str]] = {"person": self.person, "surname": self.surname, "place": self.place}
        if blank in makers:
            return makers[blank]()
        first, dash, last = blank.partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            return str(self.between(int(first), int(last)))
        return self.pick(blank.split("|"))
