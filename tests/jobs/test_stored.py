"""Another selection of the same rows takes the scores that are there."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import ranker
from ranker.cli.main import app
from ranker.errors import ConfigError, DataError, JobError
from ranker.jobs import job, leases
from ranker.jobs.plan import read as plan_in

ROWS = [{"prompt": f"p{i}", "candidates": [f"a {i}", f"b {i} c"], "id": i} for i in range(60)]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "no json\n")
    return path


@pytest.fixture
def no_model(monkeypatch):
    """Nothing can be scored from here on."""

    def forbid(*_):
        raise AssertionError("scored again")

    def forbid_now():
        monkeypatch.setattr(job.FromModel, "score", forbid)

    return forbid_now


def rows_in(folder):
    return [json.loads(line) for path in sorted(folder.glob("part-*.jsonl")) for line in path.read_text().splitlines()]


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.glob("part-*.jsonl")}


@pytest.mark.parametrize("command", ["filter", "select"])
def test_another_threshold_scores_nothing_again(command, lines, pointwise, tmp_path, no_model):
    first = ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.5, part_rows=20)
    fresh = tmp_path / "fresh"
    ranker.filter_files(lines, pointwise, fresh, keep_top=0.1, output_rows="pairs", part_rows=20)
    no_model()
    kept = tmp_path / "kept"
    if command == "filter":
        again = ranker.filter_files(lines, pointwise, kept, keep_top=0.1, output_rows="pairs", part_rows=20)
    else:
        again = ranker.select_rows(kept, keep_top=0.1, output_rows="pairs")
    assert (again.read, again.errors) == (61, 1)
    assert 6 <= again.written < first.written
    assert files_in(kept) == files_in(fresh), "as if it had been asked for first"
    assert (kept / "_SUCCESS").exists()
    assert (kept / "errors-000003.jsonl").read_text().count("no json") == 1
    threshold = plan_in(kept).settings["threshold"]
    scores = sorted(
        (max(row["ranker_scores"]) for row in rows_in(kept / "_scored") if row["ranker_scores"]), reverse=True
    )
    assert threshold["number"] == "score"
    assert threshold["at_least"] <= scores[5]


def test_a_selection_of_its_own_folder_leaves_the_first_as_it_is(lines, pointwise, tmp_path, no_model):
    ranker.filter_files(lines, pointwise, tmp_path / "kept", keep="score > -100", part_rows=20)
    before = files_in(tmp_path / "kept")
    no_model()
    result = CliRunner().invoke(
        app, ["select", str(tmp_path / "kept"), "--keep-top", "10%", "-o", str(tmp_path / "ten")]
    )
    assert result.exit_code == 0, result.output
    assert len(rows_in(tmp_path / "ten")) in range(6, 10)
    assert files_in(tmp_path / "kept") == before


def test_all_rows_are_selected_from_into_another_folder(lines, pointwise, tmp_path, no_model):
    ranker.filter_files(lines, pointwise, tmp_path / "all", part_rows=20)
    no_model()
    with pytest.raises(ConfigError, match="a folder of their own with -o"):
        ranker.select_rows(tmp_path / "all", keep_top=0.1)
    with pytest.raises(JobError, match="ranker select .* -o OTHER"):
        ranker.filter_files(lines, pointwise, tmp_path / "all", keep_top=0.1, part_rows=20)
    ranker.select_rows(tmp_path / "all", tmp_path / "ten", keep_top=0.1)
    assert len(rows_in(tmp_path / "ten")) in range(6, 10)


def test_rows_that_failed_are_not_lost_by_a_selection_from_all_rows(lines, pointwise, tmp_path):
    bad_part = lines.with_name("bad.jsonl")
    bad_part.write_text('{"prompt": "x"}\n' * 3)
    inputs = [str(bad_part), str(lines)]
    ranker.filter_files(inputs, pointwise, tmp_path / "all", part_rows=20)
    from_all = ranker.select_rows(tmp_path / "all", tmp_path / "some", keep_top=0.5)
    at_once = ranker.filter_files(inputs, pointwise, tmp_path / "at-once", keep_top=0.5, part_rows=20)
    assert (from_all.read, from_all.written, from_all.errors) == (64, at_once.written, 4)
    assert (at_once.read, at_once.errors) == (64, 4)

    def errors(folder):
        return sorted(json.loads(line)["ranker_error"] for path in folder.glob("errors-*") for line in path.open())

    assert errors(tmp_path / "some") == errors(tmp_path / "at-once")
    assert "| rows with an error | 4; the first: " in (tmp_path / "some" / "summary.md").read_text()


def test_columns_with_the_bare_names_of_results_are_read(pointwise, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"p{i}", "order": ["a", f"b {i}"], "scores": [i]}) + "\n" for i in range(9))
    )
    status = ranker.filter_files(
        path, pointwise, tmp_path / "kept", keep="score > -100", columns={"candidates": "order"}
    )
    assert (status.written, status.errors) == (9, 0)
    assert [row["scores"] for row in rows_in(tmp_path / "kept")] == [[i] for i in range(9)]


def test_a_folder_of_a_selection_is_not_taken_for_another_job(lines, pointwise, tmp_path):
    ranker.filter_files(lines, pointwise, tmp_path / "kept", keep="score > 0", part_rows=20)
    with pytest.raises(JobError, match="holds rows that were selected by their scores"):
        ranker.filter_files(lines, pointwise, tmp_path / "kept", part_rows=20)
    ranker.filter_files(lines, pointwise, tmp_path / "kept", keep="score > 0", part_rows=20, keep_scores=False)
    assert not (tmp_path / "kept" / "_scored").exists(), "the scores are discarded now"
    ranker.filter_files(lines, pointwise, tmp_path / "one", keep="score > 0", part_rows=20, keep_scores=False)
    with pytest.raises(JobError, match="was started with --discard-scores; give it again"):
        ranker.filter_files(lines, pointwise, tmp_path / "one", keep="score > 0", part_rows=20)


def test_scores_that_were_discarded_are_missed_by_name(lines, pointwise, tmp_path, no_model):
    common = {"keep_scores": False, "part_rows": 20}
    ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.5, **common)
    assert not (tmp_path / "kept" / "_scored").exists()
    no_model()
    assert ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.5, **common).parts == 0
    with pytest.raises(JobError, match=r"settings\.share 0\.5, now 0\.1; restore --keep-top"):
        ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.1, **common)
    with pytest.raises(JobError, match="its scores were discarded"):
        ranker.select_rows(tmp_path / "kept", keep_top=0.1)


def test_a_rule_without_a_share_discards_in_one_pass(lines, pointwise, tmp_path):
    ranker.filter_files(lines, pointwise, tmp_path / "one", keep="score > 0", keep_scores=False, part_rows=20)
    ranker.filter_files(lines, pointwise, tmp_path / "two", keep="score > 0", part_rows=20)
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")
    with pytest.raises(JobError, match="its scores were discarded"):
        ranker.select_rows(tmp_path / "one", keep="score > 1")


def test_a_folder_without_scores_is_refused(lines, pointwise, tmp_path, monkeypatch):
    with pytest.raises(JobError, match="found no job in it"):
        ranker.select_rows(tmp_path / "nothing", keep_top=0.1)

    def stop(rows):
        raise KeyboardInterrupt

    with pytest.raises(ranker.InterruptedRunError):
        ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.5, part_rows=20, progress=stop)
    with pytest.raises(JobError, match="not all rows are scored yet; continue it"):
        ranker.select_rows(tmp_path / "kept", keep_top=0.1)


def test_a_part_that_was_changed_is_scored_again(lines, pointwise, tmp_path):
    ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.5, part_rows=20)
    part = tmp_path / "kept" / "_scored" / "part-000001.jsonl"
    whole = part.read_bytes()
    part.write_bytes(whole.replace(b'"p21"', b'"p99"'))
    with pytest.raises(JobError, match=r"part-000001\.jsonl: was changed since it was written .*; delete it"):
        ranker.select_rows(tmp_path / "kept", keep_top=0.1)
    part.unlink()
    ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.1, part_rows=20)
    assert part.read_bytes() == whole


def test_a_selection_that_another_worker_writes_is_not_replaced(lines, pointwise, tmp_path):
    kept = tmp_path / "kept"
    ranker.filter_files(lines, pointwise, kept, keep_top=0.5, part_rows=20)
    lease = leases.Lease(kept / ".part-000001.lease")
    assert lease.take()
    with pytest.raises(JobError, match="another worker is writing another selection there"):
        ranker.select_rows(kept, keep_top=0.1)
    lease.release()


def test_a_worker_whose_selection_was_replaced_writes_nothing(lines, pointwise, tmp_path):
    kept = tmp_path / "kept"

    def replace(rows):
        if (kept / "_plan.json").exists():
            shutil.copy(tmp_path / "other" / "_plan.json", kept / "_plan.json")

    ranker.filter_files(lines, pointwise, tmp_path / "other", keep_top=0.5, part_rows=20)
    with pytest.raises(JobError, match="another command replaced the selection"):
        ranker.filter_files(lines, pointwise, kept, keep_top=0.1, part_rows=20, progress=replace)


@pytest.mark.parametrize("command", ["filter", "select"])
def test_a_bad_rule_is_refused_before_anything_is_done(command, lines, pointwise, tmp_path):
    ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.5, part_rows=20)
    before = files_in(tmp_path / "kept")
    for keep in ("scor > 1", "score > 1 #", "score >"):
        more = {"keep": keep, "keep_top": 0.1}
        try:
            if command == "filter":
                ranker.filter_files(lines, pointwise, tmp_path / "kept", part_rows=20, **more)
            else:
                ranker.select_rows(tmp_path / "kept", **more)
        except ConfigError:
            assert files_in(tmp_path / "kept") == before
        else:
            assert keep == "score > 1 #", "a comment is no error"
            ranker.select_rows(tmp_path / "kept", keep_top=0.5)


def test_rows_that_all_failed_have_no_threshold(pointwise, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "x"}\n' * 3)
    with pytest.raises(DataError, match="rows: all 3 failed"):
        ranker.filter_files(path, pointwise, tmp_path / "kept", keep_top=0.5)


def test_the_summary_names_what_a_reader_asks_for(lines, pointwise, tmp_path):
    ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.5, keep="characters > 1", part_rows=20)
    text = (tmp_path / "kept" / "summary.md").read_text()
    assert f"| input | {lines} (61 rows) |" in text
    assert f"| model | {pointwise} (SHA-256 " in text
    assert "the best 50.0% of the rows, score >= " in text
    assert "--keep 'characters > 1'" in text
    assert "rows/s" in text
    page = (tmp_path / "kept" / "summary.html").read_text()
    assert ">threshold " in page
    assert "<line " in page
    ranker.select_rows(tmp_path / "kept", tmp_path / "fewer", keep_top=0.1)
    assert f"| model | {pointwise} (SHA-256 " in (tmp_path / "fewer" / "summary.md").read_text()


def test_the_summary_of_a_model_that_compares_answers_draws_margins_and_their_threshold(lines, model, tmp_path):
    ranker.filter_files(lines, model, tmp_path / "kept", keep_top=0.5)
    text = (tmp_path / "kept" / "summary.md").read_text()
    assert "margin >= " in text
    assert "| margin, best minus next, 50% quantile (within 6 %) |" in text
    assert "best score" not in text
    assert "<line " in (tmp_path / "kept" / "summary.html").read_text()


@pytest.mark.parametrize(
    "wrong", [{"keep": "scor > 1"}, {"keep_top": 1.5}, {"keep": "score >"}, {"output_rows": "none"}]
)
def test_a_wrong_selection_leaves_no_folder(wrong, lines, pointwise, tmp_path):
    with pytest.raises(ConfigError):
        ranker.filter_files(lines, pointwise, tmp_path / "kept", **wrong)
    assert not (tmp_path / "kept").exists()
    ranker.filter_files(lines, pointwise, tmp_path / "kept", keep_top=0.5)
    with pytest.raises(ConfigError):
        ranker.select_rows(tmp_path / "kept", tmp_path / "other", **wrong)
    assert not (tmp_path / "other").exists()


def test_a_selection_from_a_job_without_rows_has_none(pointwise, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    ranker.filter_files(tmp_path / "empty.jsonl", pointwise, tmp_path / "kept", keep="score > 0")
    status = ranker.select_rows(tmp_path / "kept", tmp_path / "other", keep="score > 1")
    assert (status.read, status.written) == (0, 0)
    assert (tmp_path / "other" / "summary.md").exists()
