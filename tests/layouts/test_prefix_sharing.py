"""Several answers after one prompt that is read once."""

import numpy as np
import pytest

from ranker.layouts.prefix_sharing import BRANCHES, share_prefix, split_row
from tests.support.layouts import CLS, SEP, ids, layout

PROMPT = ids(*range(100, 110))


def shared(prompt, answers, **changes):
    text = layout("pointwise", **changes)
    packed = text.pack(prompt, answers)
    return packed, share_prefix(packed, text.max_length)


def test_short_answers_share_a_row_after_one_prompt():
    _, packed = shared(PROMPT, [ids(200), ids(300, 301)])
    (row,) = packed.rows
    assert row.ids.tolist() == [CLS, *range(100, 110), SEP, 200, SEP, 300, 301, SEP]
    assert row.blocks.tolist() == [0] * 12 + [1] * 2 + [2] * 3
    assert row.candidates == (0, 1)


def test_positions_of_every_answer_continue_the_prompts():
    _, packed = shared(PROMPT, [ids(200), ids(300, 301)])
    assert packed.rows[0].positions.tolist() == [*range(12), 12, 13, 12, 13, 14]


def test_every_answer_is_read_at_its_last_token():
    _, packed = shared(PROMPT, [ids(200), ids(300, 301)])
    assert packed.rows[0].readout == (13, 16)


def test_answers_beyond_the_share_of_their_prompt_begin_a_new_row():
    answers = [ids(*range(200, 210))] * 5
    _, packed = shared(PROMPT, answers)
    for row in packed.rows:
        prompt = int((row.blocks == 0).sum())
        assert len(row.candidates) == 1 or len(row.ids) - prompt <= BRANCHES * prompt
    assert len(packed.rows) == 3


def test_a_row_is_at_most_twice_the_length():
    _, packed = shared(ids(*range(100, 150)), [ids(*range(200, 210))] * 12)
    assert max(len(row.ids) for row in packed.rows) <= 128


def test_answers_whose_prompt_was_cut_differently_do_not_share():
    _, packed = shared(ids(*range(100, 160)), [ids(200), ids(*range(300, 330))])
    assert [row.candidates for row in packed.rows] == [(0,), (1,)]


def test_an_answer_without_tokens_is_read_at_the_prompts_end():
    _, packed = shared(PROMPT, [ids(200), ids()], suffix=())
    assert [row.candidates for row in packed.rows] == [(0,), (1,)]
    assert packed.rows[1].readout == (11,)


@pytest.mark.parametrize("seed", range(5))
def test_splitting_shared_rows_gives_the_rows_that_were_packed(seed):
    rng = np.random.default_rng(seed)
    answers = [rng.integers(500, 900, rng.integers(1, 20)).astype(np.int32) for _ in range(8)]
    packed, joined = shared(ids(*range(100, 130)), answers)
    assert len(joined.rows) < len(packed.rows)
    parts = [part for row in joined.rows for part in split_row(row)]
    for part, original in zip(parts, packed.rows, strict=True):
        assert part.ids.tolist() == original.ids.tolist()
        assert part.blocks.tolist() == original.blocks.tolist()
        assert part.positions.tolist() == original.positions.tolist()
        assert part.candidates == original.candidates
        assert part.readout == (len(original.ids) - 1,)


def test_the_flags_stay():
    packed, joined = shared(ids(*range(100, 200)), [ids(*range(200, 300)), ids(7)])
    assert joined.truncated.tolist() == packed.truncated.tolist() == [True, False]
    assert joined.prompt_truncated


def test_a_group_without_answers_stays_empty():
    assert shared(PROMPT, [])[1].rows == ()
