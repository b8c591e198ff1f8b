"""Question files for the tests of readers: small records, files of every format, and the problems of a bad one."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from falcon_job.errors import InputError
from falcon_job.records.dataset import read_passages
from falcon_job.records.passage import Passage

CONTEXT = "Caf\u00e9 M\u00fcller opened in 1920. It closed in 1944."
YEAR = {"text": "1920", "answer_start": 22}
FLAT = {
    "id": "q1",
    "context": CONTEXT,
    "question": "When?",
    "answers": {"text": ["1920"], "answer_start": [22]},
}
PAIR = {"question": "2 + 2?", "answer": "4"}


def question(**changes: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "When did it open?", "answers": [YEAR], **changes}


def squad(*questions: Any, title: Any = "Caf\u00e9", context: Any = CONTEXT) -> dict[str, Any]:
    return {
        "version": "v2.0",
        "data": [{"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}],
    }


def written(folder: Path, name: str, content: Any) -> Path:
    """Write a file of bytes, text, JSON, rows of JSON Lines or rows of Parquet, by its content and name."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_bytes(content.encode())
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


def passages_of(path: Path) -> list[Passage]:
    return list(read_passages(path))


def problems(folder: Path, name: str, content: Any) -> list[str]:
    """What is listed by the error that reading such a file raises."""
    path = written(folder, name, content)
    with pytest.raises(InputError) as caught:
        passages_of(path)
    assert caught.value.place == str(path)
    return [str(problem) for problem in caught.value.problems]
