import json
from pathlib import Path

from falcon_job.records.passage import Answer, Question
from tests.records.question_files import passages_of, written


def test_line_separators_within_a_json_line_do_not_cut_it(tmp_path: Path) -> None:
    row = json.dumps({"question": "two\u2028lines?", "answer": "yes\u0085"}, ensure_ascii=False)
    (passage,) = passages_of(written(tmp_path, "train.jsonl", f"\r\n{row}\r\n\r\n"))
    assert passage.questions == (Question("2", "two\u2028lines?", (Answer("yes\u0085", None),)),)
