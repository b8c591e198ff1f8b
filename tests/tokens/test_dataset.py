from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_job.errors import InputError
from falcon_job.tokens import dataset
from falcon_job.tokens.dataset import EncodedPassage, EncodedQuestion, Split, write_split

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tokens = st.lists(st.integers(0, 2**31 - 1), max_size=6)
questions = st.builds(EncodedQuestion, text, text, st.lists(text, max_size=3), tokens, tokens)
rows = st.builds(
    EncodedPassage, st.integers(0, 2**40), text, st.none() | text, tokens, st.lists(questions, min_size=1, max_size=4)
)
ROW = EncodedPassage(0, "A", "text", [1, 2], [EncodedQuestion("q", "Q?", ["a"], [3], [4, 0])])


@given(content=st.lists(rows, max_size=8))
@settings(deadline=None)
def test_what_is_written_is_read(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("split") / "train.arrow"
    write_split(path, iter(content))
    split = Split(path)
    assert [split[i] for i in range(len(split))] == list(split) == content
    assert split.passages.tolist() == [row.passage for row in content]
    assert split.branch_counts.tolist() == [len(row.questions) for row in content]


def test_rows_beyond_one_batch_keep_their_order_and_bytes_repeat(tmp_path):
    content = [replace(ROW, passage=i) for i in range(2 * dataset.ROWS_PER_BATCH + 1)]
    for name in ("a.arrow", "b.arrow"):
        write_split(tmp_path / "new" / name, content)
    split = Split(tmp_path / "new" / "a.arrow")
    assert split.passages.tolist() == list(range(len(content)))
    assert split[dataset.ROWS_PER_BATCH] == content[dataset.ROWS_PER_BATCH]
    with pa.memory_map(str(tmp_path / "new" / "a.arrow")) as source:
        assert pa.ipc.open_file(source).num_record_batches == 3  # not all of a file in memory at once
    assert (tmp_path / "new" / "a.arrow").read_bytes() == (tmp_path / "new" / "b.arrow").read_bytes()


@pytest.mark.parametrize("index", [-1, 1])
def test_a_row_that_is_not_there_is_an_index_error(tmp_path, index):
    write_split(tmp_path / "x.arrow", [ROW])
    with pytest.raises(IndexError, match=f"passage {index} of 1"):
        Split(tmp_path / "x.arrow")[index]


def cut_short(path):
    write_split(path, [ROW] * 10)
    path.write_bytes(path.read_bytes()[:-40])


def another_table(path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("other", pa.int64())])):
        pass


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no arrow file, by no means"),
        cut_short,
        another_table,
    ],
    ids=["missing", "empty", "garbage", "cut short", "another table"],
)
def test_a_bad_file_is_named_with_the_way_to_write_it(tmp_path, damage):
    path = tmp_path / "dev.arrow"
    damage(path)
    with pytest.raises(InputError) as caught:
        Split(path)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be read")
    assert message.endswith("run `falcon-job run preprocess`")
    assert "\n" not in message
