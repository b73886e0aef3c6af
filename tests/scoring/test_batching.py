"""Which rows share a pass, and its arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.scoring.batching import Rounding, batches, collate, plan, units
from tests.support.layouts import CLS, PAD, SEP, ids, layout


def test_plan_keeps_every_item_once_within_the_budget():
    rng = np.random.default_rng(1)
    lengths, rows = rng.integers(1, 50, 200).tolist(), rng.integers(1, 6, 200).tolist()
    cut = plan(lengths, rows, 300)
    assert sorted(i for batch in cut for i in batch) == list(range(200))
    for batch in cut:
        assert len(batch) == 1 or sum(rows[i] for i in batch) * max(lengths[i] for i in batch) <= 300


def test_plan_takes_items_by_length_the_longest_last():
    assert plan([30, 10, 20], [1, 1, 1], 40) == [[1, 2], [0]]


def test_plan_gives_an_item_beyond_the_budget_a_batch_of_its_own():
    assert plan([10, 500, 10], [1, 1, 1], 20) == [[0, 2], [1]]


def test_plan_of_nothing_is_empty():
    assert plan([], [], 100) == []


@pytest.mark.parametrize("padding", [0, 5, 20, 1000])
def test_plan_limits_the_padding_of_a_batch(padding):
    lengths = [10, 10, 11, 12, 30, 31, 32, 90]
    cut = plan(lengths, [1] * len(lengths), 1000, padding)
    assert sorted(i for batch in cut for i in batch) == list(range(len(lengths)))
    for batch in cut:
        assert sum(max(lengths[i] for i in batch) - lengths[i] for i in batch) <= padding


def test_plan_ends_a_batch_where_padding_costs_more_than_a_pass():
    lengths = [10, 10, 11, 12, 30, 31, 32, 90]
    assert plan(lengths, [1] * len(lengths), 1000, 5) == [[0, 1, 2, 3], [4, 5, 6], [7]]
    assert plan(lengths, [1] * len(lengths), 1000) == [list(range(8))]


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_batches_are_enough_for_every_worker(workers):
    text = layout("pointwise")
    items = units([text.pack(ids(10), [ids(20)]) for _ in range(12)])
    cut = list(batches(items, 1 << 20, workers, tight=True))
    assert len(cut) >= workers
    assert sum(map(len, cut)) == 12
    assert max(map(len, cut)) <= -(-12 // workers)


def test_units_of_rows_that_exchange_states_are_groups():
    text = layout("set_encoder")
    planned = units([text.pack(ids(10), [ids(20), ids(21)]), text.pack(ids(10), [ids(20)])])
    assert [(unit.group, len(unit.rows)) for unit in planned] == [(0, 2), (1, 1)]


def test_units_of_other_rows_are_rows():
    text = layout("pointwise")
    planned = units([text.pack(ids(10), [ids(20), ids(21)]), text.pack(ids(10), [ids(20)])])
    assert [(unit.group, len(unit.rows)) for unit in planned] == [(0, 1), (0, 1), (1, 1)]


@pytest.mark.parametrize("name", ["set_encoder", "pointwise"])
def test_groups_without_rows_have_no_unit(name):
    assert units([layout(name).pack(ids(10), [])]) == []


def test_the_length_of_a_unit_is_that_of_its_longest_row():
    (unit,) = units([layout("set_encoder").pack(ids(10), [ids(20), ids(20, 21, 22)])])
    assert unit.length == 7


def test_collate_fills_short_rows_with_padding():
    text = layout("pointwise", position_offset=2)
    arrays = collate(text, units([text.pack(ids(100), [ids(200), ids(201, 202)])]))
    assert arrays["input_ids"].tolist() == [[CLS, 100, SEP, 200, SEP, PAD], [CLS, 100, SEP, 201, 202, SEP]]
    assert arrays["block_ids"].tolist() == [[0, 0, 0, 1, 1, -1], [0, 0, 0, 1, 1, 1]]
    assert arrays["position_ids"].tolist() == [[2, 3, 4, 5, 6, 2], [2, 3, 4, 5, 6, 7]]


def test_collate_gives_arrays_of_int64():
    text = layout("shared_prompt")
    arrays = collate(text, units([text.pack(ids(100), [ids(200)])]))
    assert set(arrays) == {"input_ids", "block_ids", "position_ids", "readout"}
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int64)}


@given(
    st.lists(st.tuples(st.integers(1, 520), st.integers(0, 70)), min_size=1, max_size=30),
    st.sampled_from([128, 256, 512]),
)
def test_states_of_others_lie_in_the_same_run_alone_and_in_company(shapes, run):
    """A unit of (tokens, other rows): its states begin behind its pass's padding."""
    rounding = Rounding(16, 128)
    text = layout("set_encoder", max_length=1024)
    groups = [text.pack(ids(), [ids(*range(length))] * (1 + others)) for length, others in shapes]
    for batch in batches(units(groups), 4096, rounding=rounding):
        width = collate(text, batch, rounding)["input_ids"].shape[1]
        for unit in batch:
            others = len(unit.rows) - 1
            alone = rounding.length(unit.length, others)
            assert width % 16 == 0
            assert width >= alone
            assert [(width + n) // run for n in range(others)] == [(alone + n) // run for n in range(others)]


def test_alike_rows_share_a_pass_and_nothing_is_padded():
    text = layout("pointwise", max_length=512)
    packed = [text.pack(ids(), [ids(*range(length))]) for length in (30, 200, 30, 31)]
    rounding = Rounding(alike=True)
    passes = list(batches(units(packed), 4096, rounding=rounding))
    assert [[unit.group for unit in batch] for batch in passes] == [[0, 2], [3], [1]]
    assert all((collate(text, batch, rounding)["block_ids"] >= 0).all() for batch in passes)


def test_rows_that_see_no_others_share_a_pass_whatever_their_lengths():
    text = layout("pointwise", max_length=512)
    packed = [text.pack(ids(), [ids(*range(length))]) for length in (30, 200, 400)]
    assert len(list(batches(units(packed), 4096, rounding=Rounding(16, 128)))) == 1
