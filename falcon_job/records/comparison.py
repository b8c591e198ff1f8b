"""Compare train with dev: either both have passages or neither has, and they should not overlap."""

from collections.abc import Hashable, Iterator, Sequence

from falcon_job.errors import InputError
from falcon_job.records.passage import Passage
from falcon_job.validation import quoted

_SHOWN_EXAMPLES = 3


def check_same_kind(train: Sequence[Passage], dev: Sequence[Passage]) -> None:
    """Check that both splits ask about passages, or that neither does.

    Raises:
        InputError: one has passages and the other is closed-book.
    """
    train_has, dev_has = (split[0].text is not None for split in (train, dev))
    if train_has != dev_has:
        has, lacks = ("train", "dev") if train_has else ("dev", "train")
        raise InputError(
            f"asks about passages, but dataset.{lacks} is closed-book",
            place=f"dataset.{has}",
            fix="use two files of the same kind",
        )


def find_overlaps(train: Sequence[Passage], dev: Sequence[Passage]) -> list[str]:
    """Return one line for each kind of overlap between train and dev, with a count and a few examples.

    Question ids and passages (article and text) are compared. Closed-book ids may be row numbers, so the texts of
    closed-book questions are compared instead. Lines quote ids and titles, but no other text.
    """
    overlaps = []
    for kind, labelled in (
        ("question ids", _ids),
        ("passages", _texts),
        ("closed-book questions", _closed_book),
    ):
        in_dev = {key for key, _ in labelled(dev)}
        shared = {key: label for key, label in labelled(train) if key in in_dev}
        if shared:
            examples = ", ".join(list(dict.fromkeys(shared.values()))[:_SHOWN_EXAMPLES])
            overlaps.append(f"{kind} in both train and dev: {len(shared)}, such as {examples}")
    return overlaps


_Labelled = Iterator[tuple[Hashable, str]]
"""What is compared, and how a line names it."""


def _ids(passages: Sequence[Passage]) -> _Labelled:
    open_book = (passage for passage in passages if passage.text is not None)
    return ((question.id, quoted(question.id)) for passage in open_book for question in passage.questions)


def _texts(passages: Sequence[Passage]) -> _Labelled:
    open_book = (passage for passage in passages if passage.text is not None)
    return (((p.article, p.text), f"one of article {quoted(p.article)}") for p in open_book)


def _closed_book(passages: Sequence[Passage]) -> _Labelled:
    closed_book = (passage for passage in passages if passage.text is None)
    return ((question.text, f"id {quoted(question.id)}") for passage in closed_book for question in passage.questions)
