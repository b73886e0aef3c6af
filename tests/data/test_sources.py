"""Files, folders, patterns and rows in memory, of every kind that rows come in."""

import gzip
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data.load import load_preferences
from ranker.data.readers import read_rows
from ranker.data.sources import Source, files_of
from ranker.data.tables import is_rows, mappings
from ranker.data.writers import write_rows
from ranker.errors import ConfigError, DataError, OutputError
from ranker.records import BadRow

ROWS = [
    {"prompt": "12", "chosen": "NA", "rejected": 'a "quote",\nand a line'},
    {"prompt": "", "chosen": "null", "rejected": "x"},
]


def read(path):
    return [row for _, row in read_rows(str(path))]


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t"), (".csv.gz", ",")])
def test_cells_of_a_table_are_texts_whatever_they_spell(ending, separator, tmp_path):
    path = tmp_path / f"rows{ending}"
    pd.DataFrame(ROWS).to_csv(path, sep=separator, index=False)
    assert read(path) == ROWS


def test_a_row_of_a_table_with_other_cells_keeps_its_place(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,b\n1,2\n\nonly\n\xff,3\n4,5\n6,7,8\n")
    rows = read(path)
    assert [row if isinstance(row, dict) else row.where.rpartition(":")[2] for row in rows] == [
        {"a": "1", "b": "2"},
        "2",
        "3",
        {"a": "4", "b": "5"},
        "5",
    ]
    assert "expected 2 cells, as the first line has, got 1" in rows[1].reason
    assert rows[1].raw == "only"
    assert "expected UTF-8" in rows[2].reason


def test_a_quote_that_never_closes_is_an_error_and_not_one_long_cell(tmp_path):
    path = tmp_path / "rows.csv"
    for text in ('a,b\n1,"two\n3,4\n5,6\n', 'a,b\n1,"two'):
        path.write_text(text)
        with pytest.raises(DataError, match="expected a quote that ends the last cell"):
            read(path)
    path.write_text('a,b\n1,a 5" pipe\n')
    assert read(path) == [{"a": "1", "b": 'a 5" pipe'}]


def test_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="expected columns of different names, got a, a"):
        read(path)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.json.gz"])
def test_an_array_of_rows_is_read_as_its_lines_would_be(name, tmp_path):
    path = tmp_path / name
    text = json.dumps([*ROWS, 3, {"nested": [[1, {"a": "]"}]]}], indent=2)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    rows = read(path)
    assert rows[:2] == ROWS
    assert isinstance(rows[2], BadRow)
    assert rows[3] == {"nested": [[1, {"a": "]"}]]}


def test_a_long_array_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("ranker.data.readers.ARRAY_BLOCK", 64)
    path = tmp_path / "rows.json"
    rows = [{"n": number, "text": "é" * number} for number in range(200)]
    path.write_text(json.dumps(rows, ensure_ascii=False))
    assert read(path) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},', "expected a whole array of rows"),
        ('[{"a": 1}] {"b": 2}', "expected nothing after the array"),
        ('[{"a": 1} {"b": 2}]', "expected a comma after row 1 of the array"),
        ('[{"a": 1},, {"b": 2}]', "expected a whole array of rows"),
        ('{\n "a": 1\n}\n', "got one object over several lines"),
        ("prompt,chosen\n1,2\n3,4\n", "expected a JSON object on every line"),
    ],
)
def test_a_file_that_is_not_what_it_is_called_is_one_error(text, message, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert caught.value.field == "file"


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"PAR1....", "rows.jsonl", r"ending '.jsonl' says, got a Parquet file; name it .parquet"),
        (gzip.compress(b"{}"), "rows.jsonl", "got a gzip file; name it .gz"),
        (b"PK\x03\x04....", "rows.csv", "got a zip archive; unpack it first"),
        (b'{"a": 1}', "rows.csv", "got JSON; name it .jsonl or .json"),
    ],
    ids=["Parquet", "gzip", "zip", "JSON"],
)
def test_a_file_with_another_ending_is_one_error(content, name, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_a_number_that_json_has_not_does_not_lose_the_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "unused": NaN, "other": -Infinity}\n')
    (row,) = read(path)
    assert row["prompt"] == "p"


def test_a_key_that_occurs_twice_is_no_silent_loss(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "prompt": "b"}\n{"prompt": "c"}\n')
    bad, good = read(path)
    assert "the key 'prompt' occurs twice" in bad.reason
    assert good == {"prompt": "c"}


def test_a_folder_or_pattern_of_shards_is_read_in_order(tmp_path):
    for number in (1, 0, 2):
        (tmp_path / f"part-{number}.jsonl").write_text(json.dumps({"n": number}) + "\n")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "_SUCCESS").write_text("")
    for name in (str(tmp_path), f"{tmp_path}/part-*.jsonl"):
        assert [row["n"] for _, row in Source.parse(name).rows()] == [0, 1, 2]


def test_files_of_several_splits_are_not_mixed(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}-00000-of-00001.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="expected files of one split, got files of test, train; name some"):
        files_of(str(tmp_path))
    assert len(files_of(f"{tmp_path}/train*")) == 1


def test_a_saved_dataset_of_one_split_is_read_and_of_several_is_not(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "one")
    assert [row for _, row in Source.parse(str(tmp_path / "one")).rows()] == ROWS
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match="expected one split, got train, test; name one: .*two/train"):
        files_of(str(tmp_path / "two"))
    assert [row for _, row in Source.parse(str(tmp_path / "two" / "test")).rows()] == ROWS


@pytest.mark.parametrize("name", ["nowhere/*.jsonl", "."])
def test_a_source_without_files_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="found none"):
        files_of(name)


def test_rows_in_memory_are_the_same_whatever_holds_them():
    import datasets

    frame = pd.DataFrame([*ROWS, {"prompt": "only"}])
    expected = [*ROWS, {"prompt": "only", "chosen": None, "rejected": None}]
    for rows in (expected, frame, pa.Table.from_pylist(expected), datasets.Dataset.from_list(expected)):
        assert list(mappings(rows)) == expected
        assert is_rows(rows)
    assert list(mappings(pa.RecordBatch.from_pylist(ROWS))) == ROWS
    assert not is_rows(["a.jsonl", "b.jsonl"])
    for wrong in ({"train": ROWS}, 3, ["text"]):
        with pytest.raises(ConfigError, match="expected a"):
            list(mappings(wrong))


def test_results_are_written_as_parquet_with_types_of_all_rows(tmp_path, caplog):
    path = tmp_path / "out.parquet"
    rows = [{"n": None, "mixed": "a", "texts": ["a"], "half": "\ud83d"}] * 5000 + [
        {"n": 1, "mixed": ["b"], "texts": [], "late": "x"}
    ]
    with write_rows(str(path)) as out:
        for row in rows:
            out.write(row)
    table = pq.read_table(path)
    assert table.num_rows == 5001
    assert table.schema.field("n").type == pa.int64()
    assert table.column("mixed").to_pylist()[::5000] == ['"a"', '["b"]']
    assert table.column("late").to_pylist()[::5000] == [None, "x"]
    assert table.column("half")[0].as_py() == "\ufffd"
    assert "columns with values of several types are written as JSON: mixed" in caplog.text
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for name, message in (
        ("", "got a folder"),
        ("file/out.jsonl", "cannot be written"),
        ("/dev/full", "No space left"),
    ):
        with pytest.raises(OutputError, match=message), write_rows(str(tmp_path / name)) as out:
            out.write({"a": "b" * 100_000})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_messages_and_lists_in_cells_of_a_table_are_read_as_json(tmp_path):
    turns = [{"role": "user", "content": "Hi"}]
    pairs = [{"prompt": json.dumps(turns), "chosen": '["y1", "y2"]', "rejected": '["n"]'}]
    pd.DataFrame(pairs).to_csv(tmp_path / "rows.csv", index=False)
    (preference,) = load_preferences([str(tmp_path / "rows.csv")]).preferences
    assert preference.prompt[0].content == "Hi"
    assert preference.candidates == ("y1", "y2", "n")
    pd.DataFrame([{"prompt": "p", "chosen": "[1, 2]", "rejected": "{}"}]).to_csv(tmp_path / "rows.csv", index=False)
    (preference,) = load_preferences([str(tmp_path / "rows.csv")]).preferences
    assert preference.candidates == ("[1, 2]", "{}"), "an answer that is JSON stays text"
    rows = [{"prompt": "p", "chosen": '["red", "blue"]', "rejected": "red, blue"}]
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    (preference,) = load_preferences([str(tmp_path / "rows.csv")]).preferences
    assert preference.candidates == ('["red", "blue"]', "red, blue")
    rows = [{"q": '["Hi", "more"]', "a": '["a1", "a2"]', "b": '["b1", "b2"]'}]
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match=r"expected a text or messages, got a list of texts.*column 'q'"):
        load_preferences([str(tmp_path / "rows.csv")], columns={"prompt": "q", "chosen": "a", "rejected": "b"})
    pd.DataFrame([{"prompt": '[["a", "b"]]', "response": '{"x": 1}', "score": 1}]).to_csv(
        tmp_path / "rows.csv", index=False
    )
    (preference,) = load_preferences([str(tmp_path / "rows.csv")], single=True).preferences
    assert (preference.prompt, preference.candidates) == ('[["a", "b"]]', ('{"x": 1}',))
    pd.DataFrame([{"prompt": "p", "chosen": ["y1", "y2"], "rejected": ["n"]}]).to_csv(
        tmp_path / "rows.csv", index=False
    )
    with pytest.raises(DataError, match="expected a list as JSON, got it as Python writes it"):
        load_preferences([str(tmp_path / "rows.csv")])


ROOT = {"message_id": "p", "text": "Hi", "role": "prompter"}
REPLIES = [
    {"message_id": name, "parent_id": "p", "text": name, "role": "assistant", "rank": rank}
    for name, rank in (("a", 1), ("b", 0))
]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROOT, *REPLIES[:1]], "found no prompt with two ranked replies"),
        (REPLIES, "found no prompt with two ranked replies"),
        ([ROOT, *(reply | {"rank": "first"} for reply in REPLIES)], "could not convert string to float"),
        ([ROOT | {"parent_id": "p"}, *REPLIES], "message p is above itself"),
    ],
)
def test_message_trees_that_do_not_hold_together_are_refused(rows, message, tmp_path):
    path = tmp_path / "trees.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        list(Source.parse(str(path)).rows())


def test_a_tree_whose_root_has_no_parent_column_is_read(tmp_path):
    path = tmp_path / "trees.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [ROOT, *REPLIES]))
    ((_, row),) = Source.parse(str(path)).rows()
    assert (row["candidates"], row["scores"]) == (["a", "b"], [-1.0, 0.0])


@pytest.mark.parametrize("content", ["", "\n", " \n\n\t\n", "\ufeff\n", "[]", " [ ] \n"])
def test_a_file_without_rows_has_none(content, tmp_path):
    (tmp_path / "rows.jsonl").write_text(content)
    assert read(tmp_path / "rows.jsonl") == []


def test_a_key_that_occurs_twice_costs_an_array_one_row(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1, "a": 2}, {"b": 1}]')
    bad, good = read(path)
    assert "occurs twice" in bad.reason
    assert good == {"b": 1}


def test_wrong_json_in_an_array_is_refused_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr("ranker.data.readers.ARRAY_BLOCK", 64)
    path = tmp_path / "rows.json"
    path.write_text('[{"n": 1}, {"n": wrong}, ' + ", ".join(['{"n": 2}'] * 10_000) + "]")
    with pytest.raises(DataError, match=r"rows\.json:2: .*invalid JSON"):
        read(path)


def test_lines_keep_their_numbers_after_blank_ones(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('\n\n{"a": 1}\n')
    assert [where for where, _ in read_rows(str(path))] == [f"{path}:3"]


def test_a_column_without_a_name_is_called_by_its_place(tmp_path):
    path = tmp_path / "rows.csv"
    pd.DataFrame({"prompt": ["p"]}).to_csv(path)
    assert read(path) == [{"column_1": "0", "prompt": "p"}]


def test_damaged_standard_input_is_one_line(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'[{"a": "\xff"}]')))
    with pytest.raises(DataError, match="stdin: .*expected UTF-8"):
        read("-")


def test_trees_are_joined_after_a_bad_line_and_damaged_folders_are_named(tmp_path):
    path = tmp_path / "trees.jsonl"
    path.write_text("".join(f"{line}\n" for line in ["bad", *map(json.dumps, [ROOT, *REPLIES])]))
    bad, row = (row for _, row in Source.parse(f"oasst2={path}").rows())
    assert isinstance(bad, BadRow)
    assert row["candidates"] == ["a", "b"]
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("broken")
    with pytest.raises(DataError, match="expected what save_to_disk writes"):
        files_of(str(tmp_path / "saved"))


def test_numbers_that_no_float_holds_are_written_as_json(tmp_path, caplog):
    path = tmp_path / "out.parquet"
    with write_rows(str(path)) as out:
        for row in [{"id": 2**60 + 1, "score": 1, "half\ud800": "x"}] * 4096 + [{"id": 1.5, "score": 0.5}]:
            out.write(row)
    table = pq.read_table(path)
    assert table.column("id").to_pylist()[::4096] == [str(2**60 + 1), "1.5"]
    assert table.column("score").to_pylist()[::4096] == [1.0, 0.5]
    assert "written as JSON: id" in caplog.text
    assert table.column_names[2] == "half\ufffd"
