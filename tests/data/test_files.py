import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data.load import load_preferences
from ranker.data.readers import read_rows
from ranker.data.writers import write_rows
from ranker.errors import DataError
from ranker.records import BadRow

ROWS = [{"prompt": "p\u2028 one", "chosen": "\u00e9", "rejected": "b"}, {"prompt": "q", "chosen": "c", "rejected": "d"}]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_what_is_written_is_read(suffix, tmp_path):
    path = str(tmp_path / f"rows{suffix}")
    with write_rows(path) as out:
        for row in ROWS:
            out.write(row)
    assert [row for _, row in read_rows(path)] == ROWS
    assert [where for where, _ in read_rows(path)] == [f"{path}:1", f"{path}:2"]


def test_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert [row for _, row in read_rows(str(path))] == ROWS
    assert len(load_preferences([str(path)]).preferences) == 2


def test_a_bad_line_keeps_its_place_and_content(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{broken\n[1]\n\n{"b": 2}\n')
    rows = [row for _, row in read_rows(str(path))]
    assert rows[0] == {"a": 1}
    assert rows[3] == {"b": 2}
    assert isinstance(rows[1], BadRow)
    assert rows[1].raw == "{broken\n"
    assert "rows.jsonl:3" in str(rows[2])
    assert "got list" in str(rows[2])


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("old")

    def half():
        with write_rows(str(path)) as out:
            out.write({"half": 1})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_compressed_output_is_the_same_bytes_every_time(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        with write_rows(str(tmp_path / name)) as out:
            out.write({})
    assert (tmp_path / "a.jsonl.gz").read_bytes()[10:] == (tmp_path / "b.jsonl.gz").read_bytes()[10:]
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == b"{}\n"


def test_missing_file_is_named():
    with pytest.raises(DataError, match="nowhere.jsonl: file: expected an existing file"):
        list(read_rows("nowhere.jsonl"))


def test_loading_raises_or_skips_and_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps(ROWS[0]), "{bad", '{"prompt": "p", "candidates": ["a"], "scores": [1]}', json.dumps(ROWS[1])]
    path.write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        load_preferences([str(path)])
    loaded = load_preferences([str(path)], on_error="skip")
    assert (len(loaded.preferences), loaded.skipped, loaded.unusable) == (2, 1, 1)
    assert len(load_preferences([str(path)], on_error="skip", limit=1).preferences) == 1


def test_a_file_without_comparisons_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "candidates": ["a"], "scores": [1]}\n')
    with pytest.raises(DataError, match="at least one labelled comparison"):
        load_preferences([str(path)])


def test_a_dataset_name_with_a_split_is_loaded_by_the_datasets_library(monkeypatch):
    import datasets

    asked = []

    def fake(name, config, *, split, **options):
        asked.append((name, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    assert len(load_preferences(["some-org/some-pairs:test", "some-org/other"]).preferences) == 4
    assert asked == [("some-org/some-pairs", "test"), ("some-org/other", "train")]


def test_a_byte_order_mark_and_foreign_bytes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n{"a": "caf\xe9"}\n{"a": "\xef\xbf\xbd"}\n')
    first, second, third = (row for _, row in read_rows(str(path)))
    assert first == {"a": 1}
    assert isinstance(second, BadRow)
    assert "expected UTF-8" in str(second)
    assert third == {"a": "\ufffd"}


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet", "rows.jsonl.zst"])
def test_damaged_files_are_named(name, tmp_path):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS * 100), path)
    else:
        with write_rows(str(path)) as out:
            for row in ROWS * 100:
                out.write(row)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"{name}: file: damaged or truncated"):
        list(read_rows(str(path)))


def test_outputs_that_are_no_plain_files(tmp_path):
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    real.write_text("old")
    link.symlink_to(real)
    with write_rows(str(link)) as out:
        out.write({"new": 1})
    assert link.is_symlink()
    assert real.read_text() == '{"new": 1}\n'
    with write_rows("/dev/null") as out:
        out.write({"gone": 1})
    with pytest.raises(DataError, match="expected a name ending in"), write_rows(str(tmp_path / "out.xlsx")):
        pass


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet"])
def test_rows_are_read_where_fsspec_finds_them(tmp_path, name):
    import fsspec
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"prompt": "p", "n": i} for i in range(5)]
    local = tmp_path / name
    if name.endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(rows), local)
    else:
        with write_rows(str(local)) as out:
            for row in rows:
                out.write(row)
    fsspec.filesystem("memory").pipe(f"/bucket/{name}", local.read_bytes())
    loaded_rows = list(read_rows(f"memory://bucket/{name}"))
    assert [row for _, row in loaded_rows] == rows
    assert loaded_rows[2][0] == f"memory://bucket/{name}:3"
    with pytest.raises(DataError, match="expected an existing file"):
        list(read_rows("memory://bucket/none.jsonl"))
