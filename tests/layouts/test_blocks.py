"""Rows of blocks."""

from ranker.layouts.blocks import block_row
from tests.support.layouts import ids


def test_every_block_ends_with_the_separator():
    row = block_row([([1], ids(10, 11)), ([], ids(20))], sep_id=3, position_offset=0, candidates=[0])
    assert row.ids.tolist() == [1, 10, 11, 3, 20, 3]
    assert row.blocks.tolist() == [0, 0, 0, 0, 1, 1]


def test_a_block_without_structure_is_not_read():
    row = block_row([([1], ids(10)), ([], ids(20))], sep_id=3, position_offset=0, candidates=[0])
    assert row.readout == (0,)


def test_positions_run_on_or_begin_again():
    blocks = [([1], ids(10)), ([1], ids(20))]
    running = block_row(blocks, sep_id=3, position_offset=4, candidates=[0])
    restarted = block_row(blocks, sep_id=3, position_offset=4, candidates=[0], restart=True)
    assert running.positions.tolist() == [4, 5, 6, 7, 8, 9]
    assert restarted.positions.tolist() == [4, 5, 6, 4, 5, 6]


def test_a_block_is_read_at_its_marker():
    row = block_row([([1, 9], ids(10)), ([1, 9], ids(20))], sep_id=3, position_offset=0, candidates=[0], marker_at=1)
    assert row.ids[list(row.readout)].tolist() == [9, 9]
