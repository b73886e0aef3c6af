"""A row per ordered pair, as LLM-Blender's PairRM reads them."""

from collections import Counter
from itertools import combinations

import numpy as np

from ranker.layouts.pairs import one_order
from tests.support.layouts import CLS, FIRST, SECOND, SEP, SOURCE, ids, layout


def test_every_ordered_pair_is_the_reference_sequence():
    """LLM-Blender: [CLS] <source> src [SEP] [CLS] <candidate1> A [SEP] [CLS] <candidate2> B [SEP], running positions."""
    packed = layout("ordered_pair").pack(ids(10), [ids(20), ids(30)])
    assert [r.candidates for r in packed.rows] == [(0, 1), (1, 0)]
    row = packed.rows[0]
    assert row.ids.tolist() == [CLS, SOURCE, 10, SEP, CLS, FIRST, 20, SEP, CLS, SECOND, 30, SEP]
    assert row.positions.tolist() == list(range(12))
    assert row.readout == (1, 5, 9)


def test_the_other_order_has_the_answers_exchanged():
    packed = layout("ordered_pair").pack(ids(10), [ids(20), ids(30)])
    assert packed.rows[1].ids.tolist() == [CLS, SOURCE, 10, SEP, CLS, FIRST, 30, SEP, CLS, SECOND, 20, SEP]


def test_a_lone_candidate_has_no_rows():
    assert layout("ordered_pair").pack(ids(10), [ids(20)]).rows == ()


def test_a_candidate_that_is_cut_in_one_pair_is_flagged():
    packed = layout("ordered_pair").pack(ids(10), [ids(20), ids(*range(200, 240)), ids(*range(300, 340))])
    assert packed.truncated.tolist() == [False, True, True]


def test_markers_are_structure():
    assert layout("ordered_pair").marker_ids == (SOURCE, FIRST, SECOND)


def test_one_order_holds_every_pair_once():
    packed = one_order(layout("ordered_pair").pack(ids(10), [ids(20 + n) for n in range(6)]))
    pairs = [row.candidates for row in packed.rows]
    assert len(pairs) == 15
    assert {tuple(sorted(pair)) for pair in pairs} == set(combinations(range(6), 2))


def test_one_order_puts_no_candidate_always_first():
    packed = one_order(layout("ordered_pair").pack(ids(10), [ids(20 + n) for n in range(5)]))
    assert set(Counter(row.candidates[0] for row in packed.rows).values()) == {2}


def test_one_order_keeps_the_flags():
    both = layout("ordered_pair").pack(ids(*range(100, 200)), [ids(*range(200, 300)), ids(7)])
    one = one_order(both)
    np.testing.assert_array_equal(one.truncated, both.truncated)
    assert one.prompt_truncated
