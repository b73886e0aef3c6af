"""A job is done once, whoever does it and however often it is stopped."""

import hashlib
import json
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

import ranker
from ranker.batch_scorer import BatchScorer
from ranker.cli.main import app
from ranker.errors import ConfigError, DataError, JobError, LeasedError, MissingExtraError
from ranker.jobs import job, leases, plan, stored, summary
from ranker.jobs.select import Selection

ROWS = [{"prompt": f"p{i}", "candidates": [f"a {i}", "b b", "c"][: 1 + i % 3], "id": i} for i in range(47)]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:40]) + 'no json\n{"prompt": "x"}\n')
    return path


def read(folder):
    rows_read = []
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".parquet":
            rows_read += parquet.read_table(path, page_checksum_verification=True).to_pylist()
        else:
            rows_read += [json.loads(line) for line in path.read_text().splitlines()]
    return rows_read


def test_every_row_once_in_order_and_bad_ones_in_their_places(model, lines, tmp_path):
    done = job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=9)
    assert (done.parts, done.read, done.written, done.errors) == (5, 42, 42, 2)
    rows_read = read(tmp_path / "out")
    assert [row.get("id") for row in rows_read] == [*range(40), None, None]
    whole = BatchScorer(model)(
        {"prompt": [r["prompt"] for r in ROWS[:40]], "candidates": [r["candidates"] for r in ROWS[:40]]}
    )
    for row, scores in zip(rows_read, whole["ranker_scores"], strict=False):
        assert row["ranker_scores"] == pytest.approx(scores, abs=1e-5)
    assert rows_read[40]["input"].strip() == "no json"
    assert "expected a JSON object" in rows_read[40]["ranker_error"]
    assert (tmp_path / "out" / "_SUCCESS").exists()
    notes = [json.loads(line) for line in (tmp_path / "out" / "_manifest.jsonl").read_text().splitlines()]
    for note in notes:
        assert hashlib.sha256((tmp_path / "out" / note["file"]).read_bytes()).hexdigest() == note["sha256"]


def test_parquet_stays_parquet_with_its_types(model, tmp_path):
    kinds = pa.schema([("prompt", pa.string()), ("candidates", pa.list_(pa.string())), ("id", pa.int16())])
    parquet.write_table(pa.Table.from_pylist(ROWS, schema=kinds), tmp_path / "rows.parquet")
    job.score(BatchScorer(model), [str(tmp_path / "*.parquet")], tmp_path / "out", part_rows=20)
    table = parquet.read_table(tmp_path / "out" / "part-000001.parquet")
    assert table.schema.field("id").type == pa.int16()
    assert table.schema.field("ranker_scores").type == pa.list_(pa.float32())
    assert [row["id"] for row in read(tmp_path / "out")] == list(range(47))


def test_a_stopped_job_goes_on_and_says_the_same(model, lines, tmp_path):
    job.score(BatchScorer(model), [str(lines)], tmp_path / "whole", part_rows=7)
    stopped = 0

    def stop(rows):
        nonlocal stopped
        stopped += 1
        if stopped % 3 == 0:
            raise KeyboardInterrupt

    for _ in range(20):
        try:
            done = job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=7, progress=stop)
        except KeyboardInterrupt:
            assert not (tmp_path / "out" / "_SUCCESS").exists()
            continue
        break
    assert 0 < done.parts < 6
    for path in (tmp_path / "whole").glob("part-*"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "out").glob(".part*"))
    assert job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=7).parts == 0


def _work(model, lines, folder):
    job.score(BatchScorer(model), [lines], folder, part_rows=3)


def test_a_killed_worker_loses_a_part_that_another_does(model, lines, tmp_path, monkeypatch):
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=_work, args=(str(model), str(lines), tmp_path / "out"))
    worker.start()
    while not list((tmp_path / "out").glob("part-*")):
        time.sleep(0.05)
        assert worker.is_alive() or worker.exitcode == 0
    worker.kill()
    worker.join()
    job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=3)
    assert [row.get("id") for row in read(tmp_path / "out")] == [*range(40), None, None]
    assert not list((tmp_path / "out").glob(".*.lease"))


def test_a_part_that_another_does_is_left_to_it(model, lines, tmp_path):
    job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=20)
    (tmp_path / "out" / "part-000001.jsonl").unlink()
    other = leases.Lease(tmp_path / "out" / ".part-000001.lease")
    assert other.take()
    assert not leases.Lease(other.path).take()
    assert job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=20).parts == 0
    os.utime(other.path, (time.time() - leases.STALE - 1,) * 2)
    assert job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=20).parts == 0, "its process lives"
    other.path.write_text("another-machine 12 34 token\n")
    assert job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=20).parts == 0, "and was just there"
    os.utime(other.path, (time.time() - leases.STALE - 1,) * 2)
    assert job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=20).parts == 1
    other.release()


def test_a_lease_is_one_workers_and_is_kept_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "STALE", 0.4)
    path = tmp_path / ".part-000000.lease"
    first = leases.Lease(path)
    assert first.take()
    modified = path.stat().st_mtime
    time.sleep(0.3)
    assert path.stat().st_mtime > modified
    path.write_text("another-machine 1 2 x\n")
    first.release()
    assert path.exists(), "another's lease is not given back"
    os.utime(path, (0, 0))
    takers = [leases.Lease(path) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(leases.Lease.take, takers)) == 1
    for taker in takers:
        taker.release()
    assert list(tmp_path.iterdir()) == []


def test_columns_with_a_results_name_make_room(model, tmp_path):
    rows = [row | {"ranker_error": None, "best": i, "ranker_scores": "mine"} for i, row in enumerate(ROWS)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("rows.parquet", "rows.jsonl"):
        out = tmp_path / f"out-{name}"
        job.score(
            BatchScorer(model), [str(tmp_path / name)], out, part_rows=20, selection=Selection(output_rows="best")
        )
        for i, row in enumerate(read(out)):
            assert (row["input_ranker_scores"], row["input_best"], row["input_ranker_error"]) == ("mine", i, None)
            assert row["best"] in row["candidates"]
            assert len(row["ranker_scores"]) == len(row["candidates"])
        top = tmp_path / f"top-{name}"
        stored.score_and_select(BatchScorer(model), [str(tmp_path / name)], top, share=0.5, part_rows=20)
        assert all(row["input_ranker_scores"] == "mine" for row in read(top))


def test_a_selection_that_is_none_begins_nothing(model, lines, tmp_path):
    for begin in (
        lambda: job.score(BatchScorer(model), [str(lines)], tmp_path / "out", selection=Selection("scor > 1")),
        lambda: stored.score_and_select(
            BatchScorer(model), [str(lines)], tmp_path / "out", share=0.1, selection=Selection("scor > 1")
        ),
    ):
        with pytest.raises(ConfigError, match="'scor' is not known"):
            begin()
    assert not (tmp_path / "out").exists()
    job.score(BatchScorer(model), [str(lines)], tmp_path / "out", selection=Selection("score > 1"))
    with pytest.raises(JobError, match=r"settings\.selection"):
        job.score(BatchScorer(model), [str(lines)], tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("input", r"sources\.0\.(bytes|sha256)"),
        ("rows", "part_rows 7"),
        ("columns", r"settings\.columns"),
        ("selection", "settings.selection"),
    ],
)
def test_another_job_in_the_folder_is_refused_by_the_field(model, lines, tmp_path, change, field):
    job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=7)
    columns, rows, selection = None, 7, None
    if change == "input":
        lines.write_text(lines.read_text() + json.dumps(ROWS[0]) + "\n")
    elif change == "rows":
        rows = 8
    elif change == "columns":
        columns = {"candidates": "answers"}
    else:
        selection = Selection("score > 0")
    with pytest.raises(JobError, match=f"was started with {field}"):
        job.score(
            BatchScorer(model, columns=columns), [str(lines)], tmp_path / "out", part_rows=rows, selection=selection
        )


def test_files_of_something_else_are_not_touched(model, lines, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(JobError, match="holds files of something else"):
        job.score(BatchScorer(model), [str(lines)], tmp_path / "out")
    with pytest.raises(DataError, match="expected at least one file of this pattern"):
        job.score(BatchScorer(model), [str(tmp_path / "*.none")], tmp_path / "other")
    with pytest.raises(ConfigError, match="at least one row in a part, got 0"):
        job.score(BatchScorer(model), [str(lines)], tmp_path / "other", part_rows=0)


def test_what_is_selected_comes_out_and_errors_beside_it(model, lines, tmp_path):
    job.score(BatchScorer(model), [str(lines)], tmp_path / "all", part_rows=50)
    scored = read(tmp_path / "all")[:40]
    middle = sorted(max(row["ranker_scores"]) for row in scored)[20]
    job.score(BatchScorer(model), [str(lines)], tmp_path / "kept", selection=Selection(f"score > {middle}"))
    assert [row["id"] for row in read(tmp_path / "kept")] == [
        r["id"] for r in scored if max(r["ranker_scores"]) > middle
    ]
    errors = [json.loads(line) for line in (tmp_path / "kept" / "errors-000000.jsonl").read_text().splitlines()]
    assert len(errors) == 2
    job.score(BatchScorer(model), [str(lines)], tmp_path / "best", selection=Selection(output_rows="best"))
    for row in read(tmp_path / "best"):
        assert row["best"] == row["candidates"][row["ranker_order"][0]]
    job.score(BatchScorer(model), [str(lines)], tmp_path / "pairs", selection=Selection("margin >= 0", "pairs", True))
    pairs = read(tmp_path / "pairs")
    several = [row for row in scored if len(set(row["ranker_scores"])) > 1]
    assert len(pairs) == len(several)
    for pair, row in zip(pairs, several, strict=True):
        best, worst = row["ranker_order"][0], row["ranker_order"][-1]
        assert (pair["chosen"], pair["rejected"]) == (row["candidates"][best], row["candidates"][worst])
        assert pair["margin"] == pytest.approx(row["ranker_scores"][best] - row["ranker_scores"][worst], abs=1e-5)


def test_a_model_that_compares_is_asked_for_margins(model, tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    stored.score_and_select(BatchScorer(model), [str(path)], tmp_path / "out", share=0.2, part_rows=10)
    rows = [row for row in read(tmp_path / "out" / "_scored") if row["ranker_margin"] is not None]
    best = sorted(rows, key=lambda row: -row["ranker_margin"])[: round(0.2 * len(rows))]
    assert {row["id"] for row in best} <= {row["id"] for row in read(tmp_path / "out")}
    assert "say little across prompts" not in caplog.text
    job.score(BatchScorer(model), [str(path)], tmp_path / "kept", selection=Selection("score > 0"))
    assert "say little across prompts" in caplog.text


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_best_share_is_kept_of_all_parts_together(pointwise, tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    done = stored.score_and_select(BatchScorer(pointwise), [str(path)], tmp_path / "out", share=0.2, part_rows=10)
    assert done.parts == 5
    best = sorted(((max(row["ranker_scores"]), row["id"]) for row in read(tmp_path / "out" / "_scored")), reverse=True)
    kept = {row["id"] for row in read(tmp_path / "out")}
    assert {number for _, number in best[:10]} <= kept
    assert len(kept) == math.ceil(0.2 * len(best))
    assert (
        stored.score_and_select(BatchScorer(pointwise), [str(path)], tmp_path / "out", share=0.2, part_rows=10).parts
        == 0
    )
    with pytest.raises(ConfigError, match="share in"):
        stored.score_and_select(BatchScorer(pointwise), [str(path)], tmp_path / "other", share=1.5)


def test_the_part_of_a_dead_worker_is_free_at_once(model, lines, tmp_path):
    (tmp_path / "out").mkdir()
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from ranker.jobs.leases import Lease\nassert Lease(pathlib.Path(sys.argv[1])).take()",
            tmp_path / "out" / ".part-000000.lease",
        ]
    )
    assert dead.returncode == 0
    assert job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=20).parts == 3


def test_a_summary_counts_what_became_of_the_rows(model, lines, tmp_path):
    job.score(BatchScorer(model), [str(lines)], tmp_path / "all", part_rows=7)
    rows = [row for row in read(tmp_path / "all") if row["ranker_scores"]]
    best = [max(row["ranker_scores"]) for row in rows]
    margins = [row["ranker_margin"] for row in rows if row["ranker_margin"] is not None]
    job.score(BatchScorer(model), [str(lines)], tmp_path / "kept", part_rows=7, selection=Selection("score > 0"))
    status = summary.counted(tmp_path / "kept")
    assert (status.read, status.errors, status.number, status.scored) == (42, 2, "margin", len(margins))
    assert status.written == sum(score > 0 for score in best)
    assert status.quantile(0.5) == pytest.approx(np.quantile(margins, 0.5, method="lower"), rel=0.07, abs=0.01)
    page = (tmp_path / "kept" / "summary.html").read_text()
    assert f"margin of the best candidate over the next (logits), n = {len(margins)}" in page
    assert f"| rows written | {status.written} " in (tmp_path / "kept" / "summary.md").read_text()


def test_input_may_lie_where_fsspec_finds_it_and_output_may_not(model, lines, tmp_path):
    import fsspec

    store = fsspec.filesystem("memory")
    for name in ("b", "a"):
        store.pipe(f"/rows/{name}.jsonl", lines.read_bytes())
    job.score(BatchScorer(model), ["memory://rows/*.jsonl"], tmp_path / "out", part_rows=30)
    job.score(BatchScorer(model), [str(lines)], tmp_path / "local", part_rows=30)
    plain, twice = ([row.get("ranker_scores") for row in read(tmp_path / name)] for name in ("local", "out"))
    assert twice == plain * 2
    assert len(plain) == 42
    with pytest.raises(ConfigError, match="rename files in one step"):
        job.score(BatchScorer(model), [str(lines)], Path("s3://bucket/out"))


def test_input_that_was_not_touched_is_not_read_again_to_go_on(model, lines, tmp_path, monkeypatch):
    job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=20)
    (tmp_path / "out" / "part-000001.jsonl").unlink()
    opened = []
    monkeypatch.setattr(plan, "opened", lambda path: opened.append(path))
    assert job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=20).parts == 1
    assert opened == []
    monkeypatch.undo()
    os.utime(lines)
    assert job.score(BatchScorer(model), [str(lines)], tmp_path / "out", part_rows=20).parts == 0


def test_a_job_whose_rows_all_fail_is_no_success(model, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "p", "good": "a"}\n' * 3)
    for _ in range(2):
        with pytest.raises(DataError, match="rows: all 3 failed; the first: .*expected prompt and candidates"):
            job.score(BatchScorer(model), [str(tmp_path / "rows.jsonl")], tmp_path / "out", selection=Selection())
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert "the first: " in (tmp_path / "out" / "summary.md").read_text()


def test_a_protocol_without_its_library_is_said(model, tmp_path):
    with pytest.raises(MissingExtraError, match="Install s3fs"):
        job.score(BatchScorer(model), ["s3://bucket/*.jsonl"], tmp_path / "out")


def test_an_expression_with_a_comment_is_one_also_beside_a_threshold(pointwise, lines, tmp_path):
    kept = {}
    for name, keep in {"plain": "candidates >= 2", "comment": "  candidates >= 2  # two or more"}.items():
        stored.score_and_select(
            BatchScorer(pointwise), [str(lines)], tmp_path / name, share=0.5, selection=Selection(keep=keep)
        )
        kept[name] = [row["id"] for row in read(tmp_path / name)]
    assert kept["plain"] == kept["comment"]
    for keep in ("candidates >= 2) or (score < 0", "candidates >= 2 # x\nor nonsense"):
        with pytest.raises(ConfigError, match="not an expression"):
            stored.score_and_select(
                BatchScorer(pointwise), [str(lines)], tmp_path / "bad", share=0.5, selection=Selection(keep=keep)
            )
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("share", [None, 0.5])
def test_pairs_of_single_answers_are_refused_before_anything_is_scored(pointwise, tmp_path, share):
    file = tmp_path / "single.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{i}", "response": "a"}) + "\n" for i in range(9)))
    with pytest.raises(ConfigError, match=r"the first 9 rows of .*single\.jsonl have one answer each"):
        ranker.filter_files(file, pointwise, tmp_path / "out", output_rows="pairs", keep_top=share)
    assert not list((tmp_path / "out").glob("part*"))


def test_a_worker_that_finds_every_part_leased_says_so_or_waits(model, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "POLL_S", 0.01)
    out = tmp_path / "out"
    out.mkdir()
    lease = leases.Lease(out / ".part-000000.lease")
    assert lease.take()
    command = ["filter", str(lines), "--model", str(model), "-o", str(out), "--quiet"]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, LeasedError)
    assert "other workers have all the parts that are left; start again when they are done, or with --wait" in str(
        done.exception
    )
    released = threading.Timer(0.3, lease.release)
    released.start()
    assert CliRunner().invoke(app, [*command, "--wait"]).exit_code == 0
    released.join()
    assert (out / "_SUCCESS").exists()
    assert len(read(out)) == 40
