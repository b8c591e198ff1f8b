from pathlib import Path

from tests.records.question_files import passages_of, problems


def test_bad_csv_rows_are_named(tmp_path: Path) -> None:
    text = "id,question,answer\na,Q\nb,Q,A,more\n,Q,A\nd,Q,A\n"
    assert problems(tmp_path, "train.csv", text) == [
        "row 1 'a': answer is missing: add it",
        "row 2 'b' has more cells than the header: quote texts that contain commas",
    ]


def test_a_csv_row_with_an_empty_id_gets_its_number(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("id,question,answer\n,Who?,Ann\nx,Where?,Here\n", encoding="utf-8")

    assert [passage.questions[0].id for passage in passages_of(path)] == ["1", "x"]
