"""What is no longer as it was written is noticed, by the name of its file, and nothing is lost without a word."""

import json
import os

import pytest
from typer.testing import CliRunner

import ranker
from ranker.cli.main import app
from ranker.errors import ConfigError, JobError
from ranker.jobs import job
from ranker.jobs.plan import PLAN

ROWS = [{"prompt": f"p{i}", "candidates": [f"a {i}", f"b {i} c"], "id": i} for i in range(60)]
CHANGED = "was changed since it was written"


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def kept(lines, pointwise, tmp_path):
    """A finished job with a selection, in three parts."""
    folder = tmp_path / "kept"
    ranker.filter_files(lines, pointwise, folder, keep_top=0.5, part_rows=20)
    return folder


def again(lines, pointwise, folder):
    return ranker.filter_files(lines, pointwise, folder, keep_top=0.5, part_rows=20)


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


PART = ["part-000001.jsonl", "_scored/part-000001.jsonl"]


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("name", PART)
def test_a_damaged_part_is_refused_by_name_when_the_job_is_started_again(name, damage, kept, lines, pointwise):
    damage(kept / name)
    with pytest.raises(JobError, match=f"{name}: {CHANGED}.*delete it, and the same ranker filter command"):
        again(lines, pointwise, kept)
    with pytest.raises(JobError, match=CHANGED):
        ranker.check_job(kept)


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_part_is_refused_when_rows_are_selected(damage, kept, tmp_path):
    damage(kept / PART[1])
    with pytest.raises(JobError, match=CHANGED):
        ranker.select_rows(kept, tmp_path / "other", keep_top=0.1)


@pytest.mark.parametrize("name", PART)
def test_a_part_that_was_deleted_is_written_again_and_the_old_success_means_nothing(name, kept, lines, pointwise):
    before = (kept / name).read_bytes()
    (kept / name).unlink()
    with pytest.raises(JobError, match="is missing, though _SUCCESS says that the job is finished"):
        ranker.check_job(kept)
    again(lines, pointwise, kept)
    assert (kept / name).read_bytes() == before
    assert (kept / "_SUCCESS").exists()
    assert ranker.check_job(kept).is_whole


def test_an_old_success_is_gone_while_a_part_is_missing(kept, lines, pointwise, monkeypatch):
    (kept / PART[1]).unlink()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job.FromModel, "score", stop)
    with pytest.raises(ranker.InterruptedRunError):
        again(lines, pointwise, kept)
    assert not (kept / "_scored" / "_SUCCESS").exists()
    with pytest.raises(JobError, match="not all rows are scored yet"):
        ranker.select_rows(kept, keep_top=0.1)


def test_a_deleted_scored_part_is_refused_when_rows_are_selected(kept):
    (kept / PART[1]).unlink()
    with pytest.raises(JobError, match=CHANGED):
        ranker.select_rows(kept, keep_top=0.1)


@pytest.mark.parametrize("new", ["longer", "as long"])
def test_input_that_is_overwritten_during_the_run_is_noticed_before_the_end(
    new, lines, pointwise, tmp_path, monkeypatch
):
    score = job.FromModel.score

    def overwrite(self, rows, shape):
        text = lines.read_text()
        lines.write_text(text + json.dumps(ROWS[0]) + "\n" if new == "longer" else text.replace("p59", "q59"))
        os.utime(lines, ns=(1, 1))
        return score(self, rows, shape)

    monkeypatch.setattr(job.FromModel, "score", overwrite)
    folder = tmp_path / "kept"
    with pytest.raises(JobError, match=r"rows.jsonl: was changed while the job ran"):
        ranker.filter_files(lines, pointwise, folder)
    assert not (folder / "_SUCCESS").exists()


def test_input_that_was_only_touched_is_the_same(lines, pointwise, tmp_path, monkeypatch):
    score = job.FromModel.score

    def touch(self, rows, shape):
        os.utime(lines, ns=(1, 1))
        return score(self, rows, shape)

    monkeypatch.setattr(job.FromModel, "score", touch)
    assert ranker.filter_files(lines, pointwise, tmp_path / "kept").read == 60


JUNK = [
    b"",
    b"no json",
    b"[]",
    b"null",
    b"1",
    b"{}",
    b'{"sources": [1]}',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"sources": 3}',
]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("place", [PLAN, f"_scored/{PLAN}"])
def test_a_plan_that_is_none_is_refused_by_name(place, junk, kept, lines, pointwise):
    (kept / place).write_bytes(junk)
    for call in (lambda: again(lines, pointwise, kept), lambda: ranker.check_job(kept)):
        with pytest.raises(JobError, match=PLAN):
            call()


@pytest.mark.parametrize("junk", JUNK)
def test_a_record_of_a_part_that_is_none_is_refused_by_name(junk, kept, lines, pointwise):
    (kept / "_scored/_parts/part-000001.json").write_bytes(junk)
    for call in (lambda: again(lines, pointwise, kept), lambda: ranker.select_rows(kept, keep_top=0.1)):
        with pytest.raises(JobError, match="part-000001.json: not the record of a part"):
            call()


def test_a_part_without_a_record_is_refused(kept, lines, pointwise):
    (kept / "_scored/_parts/part-000001.json").unlink()
    with pytest.raises(JobError, match="has no record"):
        again(lines, pointwise, kept)


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xff\xfe\x00", b"x" * 100_000])
def test_junk_in_a_lease_keeps_nobody_out_for_ever(junk, lines, pointwise, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    lease = folder / ".part-000000.lease"
    lease.write_bytes(junk)
    os.utime(lease, (1, 1))
    assert ranker.filter_files(lines, pointwise, folder).written == 60


def test_a_check_says_how_much_is_there(kept):
    result = CliRunner().invoke(app, ["filter", "--check", str(kept)])
    assert result.exit_code == 0, result.output
    assert "6 of 6 parts are there and as they were written; the job is finished" in result.output
    flip(kept / PART[0])
    result = CliRunner().invoke(app, ["filter", "--check", str(kept)])
    assert isinstance(result.exception, JobError)


def test_a_check_of_a_folder_without_a_job_says_so(tmp_path):
    with pytest.raises(JobError, match="expected a folder that ranker filter wrote"):
        ranker.check_job(tmp_path)


def test_a_job_goes_on_with_the_batches_that_it_was_started_with(lines, pointwise, tmp_path):
    folder = tmp_path / "kept"
    ranker.filter_files(lines, pointwise, folder, part_rows=20)
    plan = json.loads((folder / PLAN).read_text())
    assert plan["settings"]["max_tokens_per_forward"] > 0
    assert plan["settings"]["precision"] == "fp32"
    plan["settings"]["max_tokens_per_forward"] = 64
    (folder / PLAN).write_text(json.dumps(plan))
    (folder / "part-000002.jsonl").unlink()
    budgets = []
    score = job.fixed_tokens
    job.fixed_tokens = lambda tokens: budgets.append(tokens) or score(tokens)
    try:
        ranker.filter_files(lines, pointwise, folder, part_rows=20)
    finally:
        job.fixed_tokens = score
    assert set(budgets) == {64}


def test_another_engine_does_not_go_on_with_a_job(lines, pointwise, tmp_path):
    folder = tmp_path / "kept"
    ranker.filter_files(lines, pointwise, folder)
    plan = json.loads((folder / PLAN).read_text())
    plan["settings"]["engine"] = "onnxruntime 0.1 on CPU"
    (folder / PLAN).write_text(json.dumps(plan))
    with pytest.raises(JobError, match=r"settings.engine 'onnxruntime 0.1 on CPU', now .*restore the engine"):
        ranker.filter_files(lines, pointwise, folder)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.33, 0.5])
def test_the_best_share_is_exact_where_no_scores_tie(share, kept, lines, pointwise, tmp_path):
    status = ranker.select_rows(kept, tmp_path / "exact", keep_top=share)
    assert status.written == round(share * 60 + 0.49)


def test_rows_that_tie_at_the_threshold_are_kept_with_a_word(pointwise, tmp_path, caplog):
    rows = [{"prompt": "p", "candidates": ["a"]} for _ in range(10)]
    ranker.filter_files(rows, pointwise, tmp_path / "kept", keep_top=0.2)
    assert "10 rows have exactly the score of the last of the best 20%, so 100% are kept" in caplog.text


def test_another_selection_in_place_needs_one(kept):
    with pytest.raises(ConfigError, match="expected a selection in the place of the one that is there"):
        ranker.select_rows(kept)


def test_rows_that_were_selected_elsewhere_are_selected_from_their_scores(kept, tmp_path):
    ranker.select_rows(kept, tmp_path / "other", keep_top=0.2)
    status = ranker.select_rows(tmp_path / "other", tmp_path / "third", keep_top=0.5)
    assert (status.read, status.written) == (60, 30)
