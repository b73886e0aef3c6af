"""Labelled rows of files and of the sample."""

import json
import logging

import pytest

from ranker.data.load import check_first_rows, load_preferences, mixed
from ranker.data.sample import build
from ranker.errors import ConfigError, DataError
from ranker.records import Preference

GOOD = {"prompt": "q", "chosen": "a", "rejected": "b"}
BAD = {"prompt": "q", "chosen": "a", "rejected": 3}
SINGLE = {"prompt": "q", "response": "a", "score": 0.5}


@pytest.fixture
def small_sample(monkeypatch):
    """The sample with a few rows of each split, which are made in no time."""
    for split in build.SIZES:
        monkeypatch.setitem(build.SIZES, split, 4)


@pytest.fixture
def file(tmp_path):
    """Writes rows to a file and gives its name."""

    def write(*rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    return write


def part(count, name=""):
    return [Preference(f"{name}{n}", ("a", "b"), ((1.0,), (0.0,))) for n in range(count)]


@pytest.mark.parametrize(("source", "split"), [("sample:validation", "validation"), ("sample:test", "test")])
def test_a_split_of_the_sample_is_a_source(source, split, small_sample):
    loaded = load_preferences([source], limit=3)
    assert [row.id for row in loaded.preferences] == [f"{split}-000{n}" for n in range(3)]


def test_the_sample_without_a_split_is_its_training_rows(small_sample):
    assert load_preferences(["sample"], limit=1).preferences[0].id == "train-0000"


def test_an_unknown_split_of_the_sample_is_answered_with_those_there():
    with pytest.raises(DataError, match=r"expected sample:train, sample:validation, sample:test"):
        load_preferences(["sample:dev"])


def test_a_split_of_the_sample_has_all_its_rows(small_sample):
    assert len(load_preferences(["sample:validation"]).preferences) == 4


def test_rows_of_several_sources_come_in_order(file):
    first, second = file({**GOOD, "id": "1"}, name="b.jsonl"), file({**GOOD, "id": "2"}, name="a.jsonl")
    assert [row.id for row in load_preferences([first, second]).preferences] == ["1", "2"]


@pytest.mark.parametrize("bad", [BAD, "{broken"])
def test_a_bad_row_stops_the_loading_with_its_line(bad, file):
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        load_preferences([file(GOOD, bad)])


def test_bad_rows_are_skipped_and_counted_with_their_reasons(file, caplog):
    loaded = load_preferences([file(GOOD, BAD, "{broken", GOOD)], on_error="skip")
    assert (len(loaded.preferences), loaded.skipped) == (2, 2)
    assert "rows.jsonl:2" in loaded.reasons[0]
    assert "2 bad rows skipped: " in caplog.text


def test_only_the_first_reasons_are_kept(file):
    loaded = load_preferences([file(GOOD, *[BAD] * 9)], on_error="skip")
    assert (loaded.skipped, len(loaded.reasons)) == (9, 5)


def test_bad_rows_only_are_an_error_with_the_first_reason(file):
    with pytest.raises(DataError, match=r"expected at least one labelled comparison, got none \(.*rows\.jsonl:1"):
        load_preferences([file(BAD, BAD)], on_error="skip")


def test_an_empty_file_is_an_error(file):
    with pytest.raises(DataError, match="expected at least one labelled comparison, got none"):
        load_preferences([file()])


def test_the_limit_counts_rows_of_all_sources(file):
    sources = [file(GOOD, GOOD, name="a.jsonl"), file(GOOD, GOOD, name="b.jsonl")]
    assert len(load_preferences(sources, limit=3).preferences) == 3


def test_rows_after_the_limit_are_not_read(file):
    assert len(load_preferences([file(GOOD, BAD)], limit=1).preferences) == 1


def test_rows_that_are_left_out_do_not_count_towards_the_limit(file):
    lone = [{**SINGLE, "prompt": prompt} for prompt in ("q1", "q2")]
    loaded = load_preferences([file(lone[0], GOOD, lone[1], GOOD, GOOD)], limit=2)
    assert (len(loaded.preferences), loaded.unusable) == (2, 2)


def test_single_answers_count_towards_the_limit_once_there_are_two_to_their_prompt(file):
    rows = [{**SINGLE, "prompt": prompt} for prompt in ("q1", "q2", "q1", "q1", "q2")]
    loaded = load_preferences([file(*rows)], limit=3)
    assert [len(preference.candidates) for preference in loaded.preferences] == [3]
    assert loaded.unusable == 1


def test_single_answers_hold_no_comparison(file, caplog):
    loaded = load_preferences([file(SINGLE, GOOD)])
    assert (len(loaded.preferences), loaded.unusable) == (1, 1)
    assert "1 rows left out: they hold no comparison" in caplog.text


def test_single_answers_are_enough_where_they_are_asked_for(file):
    loaded = load_preferences([file(SINGLE, GOOD)], single=True)
    assert (len(loaded.preferences), loaded.unusable) == (2, 0)


def test_an_answer_without_a_label_is_left_out(file):
    assert load_preferences([file(SINGLE, {**SINGLE, "score": None})], single=True).unusable == 1


def test_columns_are_read_under_other_names(file):
    source = file({"question": "q", "good": "a", "worse": "b"})
    (row,) = load_preferences([source], columns={"chosen": "good", "rejected": "worse"}).preferences
    assert row.candidates == ("a", "b")


def test_an_unknown_column_name_is_refused_before_a_file_is_read():
    with pytest.raises(ConfigError, match="unknown column name 'chosn'; did you mean 'chosen'"):
        load_preferences(["absent.jsonl"], columns={"chosn": "x"})


def test_columns_that_are_not_used_are_named(file, caplog):
    with caplog.at_level(logging.WARNING):
        load_preferences([file({**GOOD, "remark": "text"})])
    assert "columns not used: remark" in caplog.text


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "a"},
        {"prompt": "q", "candidates": ["a", "b", "a"], "scores": [1, 2, 3]},
    ],
)
def test_equal_answers_with_different_labels_are_reported(row, file, caplog):
    with caplog.at_level(logging.WARNING):
        assert len(load_preferences([file(GOOD, row)]).preferences) == 2
    assert "1 of 2 rows give different labels to equal answers (as where chosen is rejected), first '" in caplog.text
    assert "rows.jsonl:2'" in caplog.text


@pytest.mark.parametrize(
    "row", [{**GOOD, "chosen": "b", "label": 0.5}, {"prompt": "q", "candidates": ["a", "b", "a"], "scores": [1, 2, 1]}]
)
def test_equal_answers_with_equal_labels_are_not(row, file, caplog):
    with caplog.at_level(logging.WARNING):
        load_preferences([file(GOOD, row)])
    assert "equal answers" not in caplog.text


def test_the_first_rows_are_looked_at_and_no_more(file):
    check_first_rows([file(GOOD, BAD), "sample", "some/dataset", "-"])
    with pytest.raises(DataError, match=r"rows\.jsonl:1: field 'rejected'"):
        check_first_rows([file(BAD)])
    with pytest.raises(DataError, match="expected an existing file"):
        check_first_rows(["absent.jsonl"])
    check_first_rows([file({"question": "q", "good": "a", "worse": "b"})], {"chosen": "good", "rejected": "worse"})


def test_the_missing_column_is_the_one_to_name(file):
    with pytest.raises(DataError, match="--column rejected=COLUMN"):
        check_first_rows([file({"prompt": "q", "chosen": "a", "worse": "b"})])


def test_equal_weights_of_one_give_every_row_once():
    parts = [part(3, "a"), part(2, "b")]
    assert mixed(parts, (1.0, 1.0), 0) == [*parts[0], *parts[1]]


def test_a_weight_of_two_gives_every_row_twice():
    rows = part(3)
    assert mixed([rows], (2.0,), 0) == [*rows, *rows]


def test_a_weight_of_a_half_gives_half_of_the_rows_once():
    rows = part(10)
    half = mixed([rows], (0.5,), 0)
    assert len(half) == len({row.prompt for row in half}) == 5


def test_a_weight_above_one_repeats_all_rows_and_a_part():
    rows = part(4)
    repeated = mixed([rows], (1.5,), 0)
    assert repeated[:4] == rows
    assert len(repeated) == 6


def test_a_weight_of_zero_leaves_a_source_out():
    assert mixed([part(3, "a"), part(2, "b")], (0.0, 1.0), 0) == part(2, "b")


def test_the_seed_decides_which_rows_are_drawn():
    rows = part(100)
    assert mixed([rows], (0.5,), 1) == mixed([rows], (0.5,), 1) != mixed([rows], (0.5,), 2)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0), (1.0, -0.5), (1.0, float("nan")), (1.0, float("inf"))])
def test_weights_that_do_not_fit_the_sources_are_refused(weights):
    with pytest.raises(ConfigError, match=r"expected one weight >= 0 per source of data\.train \(2\)"):
        mixed([part(1), part(1)], weights, 0)
