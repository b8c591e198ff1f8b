import json
from pathlib import Path

import pytest

from tests.records.question_files import FLAT, passages_of, question, squad, written


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, suffix: str) -> None:
    content = {
        "json": json.dumps(squad(question())),
        "jsonl": json.dumps(FLAT),
        "csv": "question,answer\nQ,A\n",
    }[suffix]
    plain = passages_of(written(tmp_path, f"plain.{suffix}", content))
    assert passages_of(written(tmp_path, f"marked.{suffix}", b"\xef\xbb\xbf" + content.encode())) == plain
