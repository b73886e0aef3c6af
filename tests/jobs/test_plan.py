"""The input of a job, its parts, and whether a folder holds the same job."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from ranker.data.sources import Source
from ranker.errors import ConfigError, DataError, JobError
from ranker.jobs.plan import InputFile, Part, Plan, Reader, expanded, make_plan, read, start_or_resume
from ranker.records import BadRow

SOURCES = (InputFile("a.jsonl", 10, "aa", 5), InputFile("b.jsonl", 20, "bb", 0), InputFile("c.jsonl", 30, "cc", 3))
PLAN = Plan(SOURCES, 2, {"model": {"name": "m"}, "columns": ["x"]})


@pytest.fixture
def rows(tmp_path):
    """Five rows, the third of them broken."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0}\n{"n": 1}\n{broken\n{"n": 3}\n{"n": 4}\n')
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def test_parts_are_the_rows_of_each_file_in_order():
    assert list(PLAN.parts()) == [
        Part(0, "a.jsonl", 0, 2),
        Part(1, "a.jsonl", 2, 2),
        Part(2, "a.jsonl", 4, 1),
        Part(3, "c.jsonl", 0, 2),
        Part(4, "c.jsonl", 2, 1),
    ]


def test_names_of_parts_sort_like_their_numbers():
    assert Part(12, "a", 0, 1).name == "part-000012"


def test_names_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [source.path for source in expanded(["rows.jsonl"])] == [str(tmp_path / "rows.jsonl")]


def test_a_glob_gives_its_files_sorted(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        (tmp_path / name).touch()
    assert [source.path for source in expanded([f"{tmp_path}/*.jsonl"])] == [
        str(tmp_path / "a.jsonl"),
        str(tmp_path / "b.jsonl"),
    ]


def test_a_file_of_several_patterns_is_read_once(tmp_path):
    (tmp_path / "a.jsonl").touch()
    assert [source.path for source in expanded([f"{tmp_path}/a.jsonl", f"{tmp_path}/*.jsonl"])] == [
        str(tmp_path / "a.jsonl")
    ]


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path):
    path = tmp_path / "rows[1].jsonl"
    path.touch()
    assert [source.path for source in expanded([str(path)])] == [str(path)]


def test_a_glob_without_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected at least one file of this pattern, found none"):
        expanded([f"{tmp_path}/*.jsonl"])


def test_a_remote_name_stays_as_it_is():
    assert [source.path for source in expanded(["s3://bucket/rows.jsonl"])] == ["s3://bucket/rows.jsonl"]


def test_a_plan_has_the_rows_bytes_and_hash_of_a_file(rows, folder):
    (source,) = make_plan([Source(str(rows))], 2, {}, folder).sources
    content = rows.read_bytes()
    assert (source.rows, source.bytes, source.sha256) == (5, len(content), hashlib.sha256(content).hexdigest())
    assert source.modified == rows.stat().st_mtime_ns


def test_a_plan_of_a_missing_file_names_it(tmp_path, folder):
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        make_plan([Source(str(tmp_path / "absent.jsonl"))], 2, {}, folder)


def test_a_file_that_did_not_change_is_not_read_again(rows, folder, monkeypatch):
    first = start_or_resume(make_plan([Source(str(rows))], 2, {}, folder), folder)
    monkeypatch.setattr(Source, "rows", lambda source: pytest.fail("it is read again"))
    assert make_plan([Source(str(rows))], 2, {}, folder) == first


def test_a_file_that_changed_is_read_again(rows, folder):
    start_or_resume(make_plan([Source(str(rows))], 2, {}, folder), folder)
    rows.write_text('{"n": 9}\n')
    assert make_plan([Source(str(rows))], 2, {}, folder).sources[0].rows == 1


def test_a_new_folder_gets_the_plan(folder):
    assert start_or_resume(PLAN, folder) == PLAN
    assert read(folder) == PLAN


def test_a_folder_without_a_job_has_no_plan(tmp_path):
    assert read(tmp_path) is None


def test_the_same_job_is_resumed(folder):
    start_or_resume(PLAN, folder)
    assert start_or_resume(PLAN, folder) == PLAN


def test_a_file_with_another_time_is_the_same_job(rows, folder):
    start_or_resume(make_plan([Source(str(rows))], 2, {}, folder), folder)
    os.utime(rows, (0, 0))
    plan = make_plan([Source(str(rows))], 2, {}, folder)
    assert start_or_resume(plan, folder) == plan


@pytest.mark.parametrize(
    ("changed", "field", "repair"),
    [
        (Plan(SOURCES, 3, PLAN.settings), "part_rows 2, now 3", "restore --part-rows"),
        (Plan(SOURCES[:1], 2, PLAN.settings), r"sources\.1\.path .b.jsonl., now 'nothing'", "restore the input"),
        (
            Plan(SOURCES, 2, {**PLAN.settings, "model": {"name": "n"}}),
            r"settings\.model\.name 'm', now 'n'",
            "the model",
        ),
        (Plan(SOURCES, 2, {**PLAN.settings, "columns": ["y"]}), r"settings\.columns\.0 'x', now 'y'", "--column"),
        (Plan(SOURCES, 2, {**PLAN.settings, "share": 0.5}), r"settings\.share 'nothing', now 0\.5", "--keep-top"),
        (Plan(SOURCES, 2, PLAN.settings, version=3), "version 2, now 3", "choose a new folder"),
    ],
)
def test_another_job_is_refused_by_the_field_that_differs(changed, field, repair, folder):
    start_or_resume(PLAN, folder)
    with pytest.raises(JobError, match=f"was started with {field}.*{repair}"):
        start_or_resume(changed, folder)


def test_a_folder_of_something_else_is_refused(folder):
    folder.mkdir()
    (folder / "thesis.tex").touch()
    with pytest.raises(JobError, match=r"holds files of something else \(thesis\.tex\); choose a new folder"):
        start_or_resume(PLAN, folder)


def test_hidden_files_do_not_make_a_folder_something_elses(folder):
    folder.mkdir()
    (folder / ".DS_Store").touch()
    start_or_resume(PLAN, folder)
    assert read(folder) == PLAN


def test_a_folder_in_an_object_store_is_refused():
    with pytest.raises(ConfigError, match="expected a folder that can rename files in one step"):
        start_or_resume(PLAN, Path("s3://bucket/out"))


def test_a_plan_is_readable_json(folder):
    start_or_resume(PLAN, folder)
    assert json.loads((folder / "_plan.json").read_text())["part_rows"] == 2


def test_a_reader_gives_the_rows_of_parts_in_order(rows):
    reader = Reader()
    first, second = reader.rows(Part(0, str(rows), 0, 2)), reader.rows(Part(1, str(rows), 2, 3))
    assert [row["n"] for _, row in first] == [0, 1]
    assert isinstance(second[0][1], BadRow)
    assert [row["n"] for _, row in second[1:]] == [3, 4]


def test_a_reader_continues_where_the_part_before_ended(rows, monkeypatch):
    opened = []
    read_rows = Source.rows
    monkeypatch.setattr(Source, "rows", lambda source: opened.append(source.path) or read_rows(source))
    reader = Reader()
    reader.rows(Part(0, str(rows), 0, 2))
    reader.rows(Part(2, str(rows), 4, 1))
    assert opened == [str(rows)]


def test_a_reader_goes_back_to_an_earlier_part(rows):
    reader = Reader()
    reader.rows(Part(1, str(rows), 3, 2))
    assert [row["n"] for _, row in reader.rows(Part(0, str(rows), 0, 2))] == [0, 1]


def test_rows_keep_their_line_numbers(rows):
    assert [where for where, _ in Reader().rows(Part(1, str(rows), 3, 2))] == [f"{rows}:4", f"{rows}:5"]


def test_a_file_that_became_shorter_is_named(rows):
    with pytest.raises(DataError, match="expected 7 rows, the file has become shorter"):
        Reader().rows(Part(1, str(rows), 4, 3))
