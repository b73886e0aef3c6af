"""What holds for every layout."""

import numpy as np
import pytest
from pydantic import ValidationError

from ranker.layouts import LAYOUTS, parse
from ranker.layouts.pairs import PairLayout
from ranker.scoring.batching import collate, units
from tests.support.layouts import STRUCTURE, ids, layout, pack

NAMES = tuple(LAYOUTS)
CUTTING = tuple(name for name in NAMES if name != "conversation")
"""Layouts that cut ids; conversations are rendered from less text instead."""
PAIRS = ("ordered_pair", "steamshp", "judge")
LONG = ids(*range(100, 200))


def random_texts(rng, most=90):
    return [rng.integers(500, 900, rng.integers(0, most)).astype(np.int32) for _ in range(rng.integers(0, 5))]


def test_every_layout_is_tested_here():
    assert set(STRUCTURE) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_layout_parsed_again_is_equal(name):
    original = layout(name, position_offset=2)
    assert parse(original.model_dump(mode="json")) == original


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_field_is_refused_by_name(name):
    with pytest.raises(ValidationError, match="pad_token"):
        layout(name, pad_token=3)


def test_an_unknown_layout_is_refused_by_name():
    with pytest.raises(ValidationError, match="'hub' found using 'layout' does not match any of the expected tags"):
        parse({"layout": "hub", "pad_id": 0})


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_that_may_take_more_than_half_is_refused(name):
    with pytest.raises(ValidationError, match="expected prompt_reserve at most half of max_length 64"):
        layout(name, prompt_reserve=33)


@pytest.mark.parametrize("name", CUTTING)
def test_cost_of_random_groups_is_that_of_their_rows(name):
    rng = np.random.default_rng(0)
    for _ in range(50):
        prompt, answers = rng.integers(500, 900, rng.integers(0, 90)).astype(np.int32), random_texts(rng)
        packed = pack(layout(name), prompt, answers)
        parts = 2 if name == "judge" else 1  # its ids as the first of a pair, and as the second
        rows, longest = layout(name).cost(len(prompt), [parts * len(answer) for answer in answers])
        assert rows == len(packed.rows)
        assert packed.length == (longest if rows else 0)


@pytest.mark.parametrize("name", CUTTING)
def test_a_row_of_long_texts_fits_the_length(name):
    packed = pack(layout(name), LONG, [ids(*range(200, 300)), ids(*range(300, 400))])
    blocks = 3 if name == "shared_prompt" else 1
    assert {len(row.ids) for row in packed.rows} == {64 * blocks}


@pytest.mark.parametrize("name", CUTTING)
def test_a_row_of_the_smallest_length_fits_it(name):
    packed = pack(layout(name, max_length=16, prompt_reserve=8), LONG, [LONG, LONG])
    blocks = 3 if name == "shared_prompt" else 1
    assert {len(row.ids) for row in packed.rows} == {16 * blocks}


@pytest.mark.parametrize("name", CUTTING)
def test_truncation_of_a_prompt_keeps_its_newest_tokens(name):
    packed = pack(layout(name), LONG, [ids(*range(200, 300)), ids(7)])
    assert packed.prompt_truncated
    for row in packed.rows:
        kept = row.ids[(row.ids >= 100) & (row.ids < 200)].tolist()
        assert kept == list(range(200 - len(kept), 200))
        assert len(kept) >= 8


@pytest.mark.parametrize("name", CUTTING)
def test_truncation_of_an_answer_keeps_its_start_and_is_flagged(name):
    packed = pack(layout(name), LONG, [ids(*range(200, 300)), ids(7)])
    assert packed.truncated.tolist() == [True, False]
    for row in packed.rows:
        if 0 in row.candidates:
            answer = row.ids[(row.ids >= 200) & (row.ids < 300)].tolist()
            assert answer == list(range(200, 200 + len(answer)))


@pytest.mark.parametrize("name", NAMES)
def test_texts_that_fit_are_not_flagged(name):
    packed = pack(layout(name), ids(100, 101), [ids(200), ids(201)])
    assert not packed.truncated.any()
    assert not packed.prompt_truncated


@pytest.mark.parametrize("name", NAMES)
def test_a_group_without_candidates_has_no_rows(name):
    packed = pack(layout(name), ids(100), [])
    assert packed.rows == ()
    assert packed.length == 0
    assert packed.truncated.shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_empty_texts_leave_the_structure(name):
    assert all(len(row.ids) > 0 for row in pack(layout(name), ids(), [ids(), ids()]).rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_arrays_of_a_row_have_one_length(name):
    for row in pack(layout(name), ids(100, 101), [ids(200), ids(201, 202)]).rows:
        assert len(row.ids) == len(row.blocks) == len(row.positions)
        assert {row.ids.dtype, row.blocks.dtype, row.positions.dtype} == {np.dtype(np.int32)}


@pytest.mark.parametrize("name", NAMES)
def test_scores_come_out_of_every_candidate(name):
    packed = pack(layout(name), ids(100), [ids(200), ids(201), ids(202)])
    assert {candidate for row in packed.rows for candidate in row.candidates} == {0, 1, 2}


def cells_of(text, rows, start, first, second):
    if isinstance(text, PairLayout):
        return text.cells(rows, start, first, second)
    places = text.places(rows, start)
    return places[first], places[second]


@pytest.mark.parametrize("name", NAMES)
def test_cells_point_to_the_outputs_of_the_candidates(name):
    """The outputs of a pass are numbered as the rows are; a cell must lead to the candidate that it was asked for."""
    text = layout(name)
    groups = [pack(text, ids(100), [ids(200 + n) for n in range(count)]) for count in (2, 4, 3)]
    rows = [row for packed in groups for row in packed.rows]
    start = 0
    for packed in groups:
        count = len(packed.truncated)
        for first in range(count):
            for second in range(count):
                if first == second and not text.order_free:
                    continue
                cells = cells_of(text, packed.rows, start, first, second)
                assert [rows[row].candidates[column] for row, column in cells] == [first, second]
        start += len(packed.rows)


@pytest.mark.parametrize("name", PAIRS)
def test_cells_of_an_ordered_pair_are_in_the_row_of_that_order(name):
    text = layout(name)
    packed = pack(text, ids(100), [ids(200), ids(201), ids(202)])
    (row, _), (same, _) = cells_of(text, packed.rows, 10, 2, 0)
    assert row == same
    assert packed.rows[row - 10].candidates == (2, 0)


@pytest.mark.parametrize("name", NAMES)
def test_extra_arrays_are_those_of_the_extra_input(name):
    text = layout(name)
    arrays = text.extra_arrays([unit.rows for unit in units([pack(text, ids(100), [ids(200), ids(201)])])])
    assert set(arrays) == ({text.extra_input} if text.extra_input else set())


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_its_neighbours_in_the_batch(name):
    text = layout(name)
    group = pack(text, ids(100), [ids(200), ids(201, 202)])
    alone = collate(text, units([group]))
    together = collate(text, units([group, pack(text, LONG, [ids(300), LONG])]))
    rows, width = alone["input_ids"].shape
    for part in ("input_ids", "block_ids", "position_ids"):
        np.testing.assert_array_equal(together[part][:rows, :width], alone[part])


@pytest.mark.parametrize(
    ("name", "relative", "order_free"),
    [
        ("pointwise", False, True),
        ("conversation", False, True),
        ("set_encoder", True, True),
        ("shared_prompt", True, True),
        ("ordered_pair", True, False),
        ("steamshp", True, False),
        ("judge", True, False),
    ],
)
def test_a_layout_says_what_its_scores_mean(name, relative, order_free):
    assert layout(name).scores_are_relative is relative
    assert layout(name).order_free is order_free


def test_the_character_limit_grows_with_the_length():
    assert layout("pointwise", max_length=128).character_limit == 2 * layout("pointwise").character_limit
