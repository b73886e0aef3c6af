"""A row per answer, the rows of a group seeing each other."""

import numpy as np

from ranker.scoring.batching import batches, collate, units
from tests.support.layouts import CLS, PAD, SEP, ids, layout


def test_rows_are_one_per_candidate():
    packed = layout("set_encoder", position_offset=2).pack(ids(10, 11), [ids(20), ids(30, 31)])
    assert [r.ids.tolist() for r in packed.rows] == [[CLS, 10, 11, SEP, 20, SEP], [CLS, 10, 11, SEP, 30, 31, SEP]]
    assert packed.rows[0].blocks.tolist() == [0, 0, 0, 0, 1, 1]
    assert packed.rows[0].positions.tolist() == [2, 3, 4, 5, 6, 7]
    assert packed.rows[0].readout == (0,)


def test_rows_of_a_group_share_a_batch():
    packed = layout("set_encoder").pack(ids(10), [ids(20), ids(30)])
    assert packed.together
    assert [len(unit.rows) for unit in units([packed])] == [2]


def test_members_are_the_other_rows_of_the_group():
    text = layout("set_encoder")
    packed = [text.pack(ids(10), [ids(20), ids(21), ids(22)]), text.pack(ids(11), [ids(30), ids(31, 32)])]
    (batch,) = batches(units(packed), 1000)
    arrays = collate(text, batch)
    sizes = [len(u.rows) for u in batch]
    start = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    end = start + np.repeat(sizes, sizes)
    for row, members in enumerate(arrays["members"]):
        present = members[members >= 0]
        assert row not in present
        assert sorted([row, *present]) == list(range(start[row], end[row]))
    assert (arrays["block_ids"] == -1).sum() == (arrays["input_ids"] == PAD).sum()


def test_members_of_a_lone_candidate_are_absent():
    text = layout("set_encoder")
    assert text.extra_arrays([text.pack(ids(10), [ids(20)]).rows])["members"].tolist() == [[-1] * 4]
