import csv
import hashlib
import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_job.files import new_folder, read_json, sha256_file, write_csv, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_as_it_is_into_new_folders(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    write_text(path, "caf\u00e9\r\n\n")
    assert path.read_bytes() == "caf\u00e9\r\n\n".encode()
    assert names(path.parent) == ["x.txt"]


def test_a_file_is_readable_by_all(tmp_path):
    write_text(tmp_path / "x", "")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


def test_a_failing_write_leaves_the_old_file_alone(tmp_path):
    write_text(tmp_path / "x", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "x", "new, and more than a buffer of it" * 10_000 + "\ud800")
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_invalid_json_content_leaves_the_old_file_alone(tmp_path):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": [1] * 1000, "b": object()})
    assert read_json(tmp_path / "x.json") == 1
    assert names(tmp_path) == ["x.json"]


def test_rows_that_do_not_fit_their_columns_leave_the_old_content(tmp_path):
    write_csv(tmp_path / "x.csv", ["a"], [{"a": 1}])
    with pytest.raises(ValueError, match="b"):
        write_csv(tmp_path / "x.csv", ["a"], [{"a": 1}, {"b": 2}])
    assert (tmp_path / "x.csv").read_bytes() == b"a\n1\n"
    assert names(tmp_path) == ["x.csv"]


def test_a_target_that_cannot_be_replaced_leaves_no_other_file(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "x", "text")
    assert names(tmp_path) == ["x"]


@given(content=st.recursive(st.none() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])), st.lists))
def test_json_is_read_as_it_was_written(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "content.json"
    write_json(path, content)
    assert read_json(path) == content == json.loads(path.read_bytes())
    assert path.read_bytes().endswith(b"\n")


def test_json_keeps_its_order_unless_sorted(tmp_path):
    write_json(tmp_path / "a.json", {"b": "\u00e9", "a": 2})
    write_json(tmp_path / "b.json", {"b": "\u00e9", "a": 2}, sort_keys=True)
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": "\u00e9",\n  "a": 2\n}\n'
    assert (tmp_path / "b.json").read_text(encoding="utf-8") == '{\n  "a": 2,\n  "b": "\u00e9"\n}\n'


def test_csv_has_a_header_and_unix_line_ends(tmp_path):
    rows = [{"a": 1, "b": 'x, "y"'}, {"a": None, "b": "two\nlines"}]
    write_csv(tmp_path / "x.csv", iter(["a", "b"]), iter(rows))
    assert b"\r" not in (tmp_path / "x.csv").read_bytes()
    with (tmp_path / "x.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": 'x, "y"'}, {"a": "", "b": "two\nlines"}]


@pytest.mark.parametrize("content", [b"", b"abc", b"x" * 3_000_000])
def test_hashes_are_those_of_sha256(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    target = tmp_path / "build" / "out"
    for name in ("old", "new"):
        with new_folder(target) as folder:
            assert list(folder.iterdir()) == []
            assert folder.parent == target.parent
            (folder / name).write_text(name)
        assert names(target) == [name]
    assert names(target.parent) == ["out"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_new_folder_that_fails_leaves_the_old_one(tmp_path, error):
    target = tmp_path / "out"
    with new_folder(target) as folder:
        (folder / "old").touch()

    def fail():
        with new_folder(target) as folder:
            (folder / "new").touch()
            assert names(target) == ["old"]
            raise error

    with pytest.raises(error):
        fail()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_first_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), new_folder(tmp_path / "out"):
        raise ValueError
    assert names(tmp_path) == []
