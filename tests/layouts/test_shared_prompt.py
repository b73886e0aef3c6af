"""One row per group."""

from tests.support.layouts import CLS, FIRST, SEP, SOURCE, ids, layout


def test_a_group_is_one_row_with_restarted_positions():
    packed = layout("shared_prompt").pack(ids(10, 11), [ids(20), ids(30, 31)])
    (row,) = packed.rows
    assert row.ids.tolist() == [CLS, SOURCE, 10, 11, SEP, CLS, FIRST, 20, SEP, CLS, FIRST, 30, 31, SEP]
    assert row.blocks.tolist() == [0] * 5 + [1] * 4 + [2] * 5
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert row.readout == (1, 6, 10)


def test_positions_begin_at_the_offset_in_every_block():
    (row,) = layout("shared_prompt", position_offset=2).pack(ids(10), [ids(20)]).rows
    assert row.positions.tolist() == [2, 3, 4, 5, 2, 3, 4, 5]


def test_the_head_reads_the_markers():
    (row,) = layout("shared_prompt").pack(ids(10, 11), [ids(20), ids(30, 31)]).rows
    assert row.ids[list(row.readout)].tolist() == [SOURCE, FIRST, FIRST]


def test_every_block_has_the_length_of_its_own():
    (row,) = layout("shared_prompt").pack(ids(*range(100, 161)), [ids(*range(200, 261))]).rows
    assert len(row.ids) == 128


def test_the_readout_of_smaller_groups_is_filled_up():
    text = layout("shared_prompt")
    rows = [text.pack(ids(10), [ids(20), ids(30)]).rows, text.pack(ids(10), [ids(20)]).rows]
    assert text.extra_arrays(rows)["readout"].tolist() == [[1, 5, 9], [1, 5, -1]]


def test_markers_are_structure():
    assert layout("shared_prompt").marker_ids == (SOURCE, FIRST)
