from falcon_job.records.comparison import find_overlaps
from falcon_job.records.passage import Answer, Passage, Question


def open_book(article: str, text: str, *ids: str) -> Passage:
    return Passage(article, text, tuple(Question(name, "Who?", ()) for name in ids))


def closed_book(name: str, text: str) -> Passage:
    return Passage("", None, (Question(name, text, (Answer("x", None),)),))


def test_splits_without_overlap_are_disjoint() -> None:
    train = [open_book("A", "one", "1", "2"), open_book("B", "two", "3")]
    assert find_overlaps(train, [open_book("A", "two", "4"), open_book("C", "one", "5")]) == []


def test_shared_ids_and_passages_are_counted_with_examples() -> None:
    train = [open_book("A", f"text {i}", f"q{i}") for i in range(5)]
    dev = [*train[:4], open_book("B", "other", "q4")]
    assert find_overlaps(train, dev) == [
        "question ids in both train and dev: 5, such as 'q0', 'q1', 'q2'",
        "passages in both train and dev: 4, such as one of article 'A'",
    ]


def test_closed_book_splits_share_questions_not_row_numbers() -> None:
    train = [closed_book("1", "Why?"), closed_book("2", "How?")]
    assert find_overlaps(train, [closed_book("1", "Who?")]) == []
    assert find_overlaps(train, [closed_book("1", "How?")]) == [
        "closed-book questions in both train and dev: 1, such as id '2'"
    ]
