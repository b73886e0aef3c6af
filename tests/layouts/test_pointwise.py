"""A row per answer, read on its own."""

import numpy as np
import pytest

from tests.support.layouts import CLS, SEP, ids, layout


def test_rows_are_prompt_and_answer_between_their_parts():
    packed = layout("pointwise").pack(ids(100, 101), [ids(200), ids(201, 202)])
    assert [row.ids.tolist() for row in packed.rows] == [
        [CLS, 100, 101, SEP, 200, SEP],
        [CLS, 100, 101, SEP, 201, 202, SEP],
    ]
    assert packed.rows[0].blocks.tolist() == [0, 0, 0, 0, 1, 1]
    assert [row.candidates for row in packed.rows] == [(0,), (1,)]


def test_rows_need_no_common_batch():
    assert not layout("pointwise").pack(ids(100), [ids(200)]).together


def test_positions_run_from_the_offset():
    (row,) = layout("pointwise", position_offset=2).pack(ids(100), [ids(200)]).rows
    assert row.positions.tolist() == [2, 3, 4, 5, 6]


def test_the_suffix_is_never_cut():
    (row,) = layout("pointwise", suffix=(7, 8, 9)).pack(ids(*range(100, 200)), [ids(*range(200, 300))]).rows
    assert row.ids.tolist()[-3:] == [7, 8, 9]
    assert len(row.ids) == 64


def test_a_score_is_read_nowhere_but_at_the_end_unless_gated():
    assert layout("pointwise").pack(ids(100), [ids(200)]).rows[0].readout == ()


def test_a_gate_reads_where_the_structure_after_the_prompt_begins():
    (row,) = layout("pointwise", output="gated", between=(SEP, SEP)).pack(ids(100, 101), [ids(200)]).rows
    assert row.readout == (3,)
    assert row.ids[3] == SEP


def test_a_gate_without_structure_after_the_prompt_reads_its_last_token():
    (row,) = layout("pointwise", output="gated", between=()).pack(ids(100, 101), [ids(200)]).rows
    assert row.ids[row.readout[0]] == 101


def test_a_gated_layout_has_a_readout_input():
    text = layout("pointwise", output="gated")
    arrays = text.extra_arrays([text.pack(ids(100), [ids(200)]).rows, text.pack(ids(100, 101), [ids(200)]).rows])
    assert text.extra_input == "readout"
    assert arrays["readout"].tolist() == [[2], [3]]


@pytest.mark.parametrize(
    ("output", "score"), [("scalar", 2.5), ("aspects", 2.5), ("gated", 1.0), ("accept_reject", 3.0)]
)
def test_reduce_gives_the_score_of_the_outputs(output, score):
    assert layout("pointwise", output=output).reduce(np.array([[1.0, 4.0]])).tolist() == [score]
