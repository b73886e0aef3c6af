"""Rows of every shape through the commands: nothing is lost, and the output says what was cut or not read."""

import json

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import ranker
from ranker.errors import ConfigError, DataError, JobError, OutputError
from ranker.jobs.stream import FIELDS

HI, YES, NO = (
    {"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "yes"), ("assistant", "no"))
)
EPISODE = [YES, {"role": "tool", "content": "blue"}, NO]
HELPSTEER3 = {"domain": "x", "context": [HI], "response1": "no", "response2": "yes", "overall_preference": 2}
LONG = "word " * 400


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("operation", FIELDS)
def test_a_prompt_that_was_cut_is_said_by_every_command(operation, pointwise, tmp_path):
    rows = [
        {"prompt": LONG, "candidates": ["a", "b"], "reference": "c"},
        {"prompt": "p", "candidates": ["a", "b"], "reference": "c"},
    ]
    ranker.score_file(pointwise, write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl", operation=operation)
    assert [row["prompt_truncated"] for row in read(tmp_path / "out.jsonl")] == [True, False]


def test_a_prompt_that_was_cut_is_said_by_filter_and_may_be_left_out(pointwise, tmp_path):
    rows = [{"prompt": LONG, "candidates": ["a"]}, {"prompt": "p", "candidates": ["a"]}]
    source = write(tmp_path / "rows.jsonl", rows)
    ranker.filter_files(source, pointwise, tmp_path / "all")
    assert [row["ranker_prompt_truncated"] for row in read(tmp_path / "all" / "part-000000.jsonl")] == [True, False]
    ranker.filter_files(source, pointwise, tmp_path / "kept", keep="not prompt_truncated")
    assert [row["prompt"] for row in read(tmp_path / "kept" / "part-000000.jsonl")] == ["p"]


def test_the_system_and_the_earlier_turns_of_a_row_change_its_scores(pointwise, tmp_path):
    row = {"instruction": "Do", "input": "", "output": "a", "system": "be kind", "history": [["Hi", "Hey"]]}
    ranker.score_file(pointwise, [row], tmp_path / "out.jsonl")
    prompt = [
        {"role": "system", "content": "be kind"},
        HI,
        {"role": "assistant", "content": "Hey"},
        {"role": "user", "content": "Do"},
    ]
    (scored,) = read(tmp_path / "out.jsonl")
    assert scored["scores"] == pytest.approx(ranker.load(pointwise).score(prompt, ["a"]).tolist(), abs=1e-5)


def test_a_transcript_in_a_file_is_not_one_answer_without_a_prompt(pointwise, tmp_path):
    row = {"candidates": ["\n\nHuman: Hi\n\nAssistant: yes", "\n\nHuman: Hi\n\nAssistant: no"]}
    ranker.score_file(pointwise, [row], tmp_path / "out.jsonl", operation="best-of-n")
    best = ranker.load(pointwise).best_of_n([HI], ["yes", "no"])
    assert read(tmp_path / "out.jsonl")[0]["best"] == best


@pytest.mark.parametrize("command", ["score", "compare"])
@pytest.mark.parametrize("named", [True, False])
def test_a_copy_of_a_known_dataset_is_scored_in_the_order_of_its_columns(command, named, pointwise, tmp_path):
    path = write(tmp_path / "rows.jsonl", [HELPSTEER3])
    ranker.score_file(pointwise, f"helpsteer3={path}" if named else path, tmp_path / "out.jsonl", operation=command)
    (row,) = read(tmp_path / "out.jsonl")
    first, second = ranker.load(pointwise).score([HI], ["no", "yes"]).tolist()
    if command == "score":
        assert row["scores"] == pytest.approx([first, second], abs=1e-5)
    else:
        assert row["logit"] == pytest.approx(first - second, abs=1e-5)
    assert {name: row[name] for name in HELPSTEER3} == HELPSTEER3


def test_a_copy_of_a_known_dataset_is_filtered_and_selected_again(pointwise, tmp_path):
    path = write(tmp_path / "rows.jsonl", [HELPSTEER3, HELPSTEER3 | {"response1": "other"}])
    status = ranker.filter_files(f"helpsteer3={path}", pointwise, tmp_path / "out", keep_top=1.0, output_rows="pairs")
    assert (status.read, status.errors) == (2, 0)
    rows = read(tmp_path / "out" / "part-000000.jsonl")
    assert {row["chosen"][0]["content"] for row in rows} <= {"yes", "no", "other"}
    assert rows[0]["prompt"] == [HI]


def test_ranked_replies_of_message_trees_are_filtered_as_groups(pointwise, tmp_path):
    rows = [
        {"message_id": "p", "parent_id": None, "text": "Hi", "role": "prompter", "rank": None, "lang": "en"},
        {"message_id": "a", "parent_id": "p", "text": "no", "role": "assistant", "rank": 1, "lang": "en"},
        {"message_id": "b", "parent_id": "p", "text": "yes", "role": "assistant", "rank": 0, "lang": "en"},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    ranker.filter_files(tmp_path / "rows.parquet", pointwise, tmp_path / "out")
    (row,) = read(tmp_path / "out" / "part-000000.jsonl")
    assert row["candidates"] == ["no", "yes"]
    assert len(row["ranker_scores"]) == 2


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("output_rows", ["best", "pairs"])
def test_an_answer_of_several_messages_comes_out_as_messages(output_rows, ending, pointwise, tmp_path):
    plain = {"prompt": [HI], "candidates": [[YES], [NO]]}
    several = {"prompt": [HI], "candidates": [EPISODE, [NO]]}
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        parquet.write_table(pa.Table.from_pylist([plain, several]), path)
    else:
        write(path, [plain, several])
    ranker.filter_files(path, pointwise, tmp_path / "out", output_rows=output_rows)
    _, row = read(tmp_path / "out" / f"part-000000.{ending}")
    answers = [row["best"]] if output_rows == "best" else [row["chosen"], row["rejected"]]
    texts = [answer if isinstance(answer, str) else [turn["content"] for turn in answer] for answer in answers]
    assert all(text in (["yes", "blue", "no"], ["no"], "no") for text in texts)
    if output_rows == "pairs":
        assert row["prompt"] == [HI]
        assert ["yes", "blue", "no"] in texts


def test_messages_that_parquet_pairs_cannot_hold_are_kept_as_errors(pointwise, tmp_path):
    call = {"role": "assistant", "content": "x", "tool_calls": [{"name": "look"}]}
    rows = [{"prompt": [HI], "candidates": [[call, NO], [YES]]}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="rows: all 1 failed; the first: .*messages in Parquet hold role and content"):
        ranker.filter_files(tmp_path / "rows.parquet", pointwise, tmp_path / "out", output_rows="pairs")
    (row,) = read(tmp_path / "out" / "errors-000000.jsonl")
    assert "tool_calls" in row["ranker_error"]


def test_scores_are_written_as_parquet(pointwise, tmp_path):
    rows = [{"prompt": "p", "candidates": ["a", "b"], "n": 1}, {"prompt": "p", "candidates": None, "n": 2}]
    ranker.score_file(pointwise, rows, tmp_path / "out.parquet")
    good, bad = read(tmp_path / "out.parquet")
    assert good["scores"] == pytest.approx(ranker.load(pointwise).score("p", ["a", "b"]).tolist(), abs=1e-5)
    assert (bad["scores"], bad["n"]) == (None, 2)
    assert "row 2: field 'candidates'" in bad["error"]


def test_rows_in_memory_are_scored_filtered_and_evaluated(pointwise, tmp_path):
    pairs = [{"prompt": f"p{i}", "chosen": f"a {i}", "rejected": "b"} for i in range(6)]
    for rows in (pairs, pd.DataFrame(pairs), pa.Table.from_pylist(pairs)):
        assert ranker.score_file(pointwise, rows, tmp_path / "out.jsonl").rows == 6
        assert ranker.evaluate(pointwise, rows).accuracy.n == 6
    status = ranker.filter_files(pd.DataFrame(pairs), pointwise, tmp_path / "kept")
    assert (status.read, status.written) == (6, 6)
    with pytest.raises(JobError, match="was started with other rows"):
        ranker.filter_files(pairs[:2], pointwise, tmp_path / "kept")
    assert ranker.filter_files(pd.DataFrame(pairs), pointwise, tmp_path / "kept").parts == 0, (
        "the same rows, the same job"
    )


def test_a_folder_of_tables_is_scored(pointwise, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"{number}.csv").write_text(f"prompt,response\np,{number}\n")
    ranker.score_file(pointwise, tmp_path / "in", tmp_path / "out.jsonl")
    assert [row["response"] for row in read(tmp_path / "out.jsonl")] == ["0", "1"]
    with pytest.raises(ConfigError, match="says what its columns mean"):
        ranker.score_file(pointwise, f"shp={tmp_path / 'in'}", tmp_path / "x.jsonl", columns={"prompt": "p"})


def test_an_output_that_is_a_folder_is_refused_before_the_model_is_loaded(tmp_path):
    rows = [{"prompt": "p", "candidates": ["a"]}]
    with pytest.raises(OutputError, match="expected the name of a file to write, got a folder"):
        ranker.score_file("no-such-model.onnx", rows, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="expected a folder to write, got a file"):
        ranker.filter_files(rows, "no-such-model.onnx", tmp_path / "file")


def test_cells_of_messages_are_selected_as_they_were_scored(pointwise, tmp_path):
    rows = [{"prompt": json.dumps([HI]), "candidates": json.dumps(["yes", f"no {i}"])} for i in range(4)]
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    status = ranker.filter_files(tmp_path / "rows.csv", pointwise, tmp_path / "out", keep_top=1.0, output_rows="pairs")
    assert (status.written, status.errors) == (4, 0)
    assert read(tmp_path / "out" / "part-000000.jsonl")[0]["prompt"] == [HI]
