from pathlib import Path

from tests.records.question_files import FLAT, problems, written


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path, "whole.parquet", [{**FLAT, "id": f"q{i}"} for i in range(100)]).read_bytes()
    for length in (4, len(whole) // 2, len(whole) - 1):
        assert "is not a complete Parquet file" in problems(tmp_path, "cut.parquet", whole[:length])[0]
    damaged = whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :]
    problems(tmp_path, "damaged.parquet", damaged)
