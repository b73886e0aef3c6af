from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from ranker.errors import ConfigError
from ranker.layouts import parse
from ranker.layouts.truncation import split_budget
from ranker.records import Group
from ranker.scoring.batching import batches, collate, plan, units
from ranker.scoring.executor import score_groups
from ranker.scoring.pipeline import TextPipeline
from tests.conftest import tiny

CLS, SEP, PAD = 2, 3, 0


def layout(name, **kwargs):
    markers = {"shared_prompt": {"markers": (90, 91)}, "ordered_pair": {"markers": (90, 91, 92)}}.get(name, {})
    structure = (
        {"prefix": (CLS,), "between": (SEP,), "suffix": (SEP,)}
        if name == "pointwise"
        else {"cls_id": CLS, "sep_id": SEP}
    )
    lengths = {"max_length": 64, "prompt_reserve": 8}
    return parse({"layout": name, "pad_id": PAD, **structure, **markers, **lengths, **kwargs})


def ids(*values):
    return np.array(values, np.int32)


def test_shared_prompt_is_one_row_with_restarted_positions():
    packed = layout("shared_prompt").pack(ids(10, 11), [ids(20), ids(30, 31)])
    (row,) = packed.rows
    assert row.ids.tolist() == [CLS, 90, 10, 11, SEP, CLS, 91, 20, SEP, CLS, 91, 30, 31, SEP]
    assert row.blocks.tolist() == [0] * 5 + [1] * 4 + [2] * 5
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert row.readout == (1, 6, 10)


def test_set_encoder_is_one_row_per_candidate():
    packed = layout("set_encoder", position_offset=2).pack(ids(10, 11), [ids(20), ids(30, 31)])
    assert [r.ids.tolist() for r in packed.rows] == [[CLS, 10, 11, SEP, 20, SEP], [CLS, 10, 11, SEP, 30, 31, SEP]]
    assert packed.rows[0].blocks.tolist() == [0, 0, 0, 0, 1, 1]
    assert packed.rows[0].positions.tolist() == [2, 3, 4, 5, 6, 7]
    assert packed.together
    assert not layout("pointwise").pack(ids(10), [ids(20)]).together


def test_ordered_pair_is_the_reference_sequence_for_every_ordered_pair():
    """LLM-Blender: [CLS] <source> src [SEP] [CLS] <candidate1> A [SEP] [CLS] <candidate2> B [SEP], running positions."""
    packed = layout("ordered_pair").pack(ids(10), [ids(20), ids(30)])
    assert [r.candidates for r in packed.rows] == [(0, 1), (1, 0)]
    row = packed.rows[0]
    assert row.ids.tolist() == [CLS, 90, 10, SEP, CLS, 91, 20, SEP, CLS, 92, 30, SEP]
    assert row.positions.tolist() == list(range(12))
    assert row.readout == (1, 5, 9)


@pytest.mark.parametrize("name", ["shared_prompt", "set_encoder", "ordered_pair"])
def test_truncation_keeps_the_newest_context_and_the_start_of_the_answer(name):
    prompt, answers = ids(*range(100, 200)), [ids(*range(200, 300)), ids(7)]
    packed = layout(name).pack(prompt, answers)
    assert packed.prompt_truncated
    assert packed.truncated.tolist() == [True, False]
    for row in packed.rows:
        limit = 64 if name != "shared_prompt" else 64 * 3
        assert len(row.ids) <= limit
        kept = row.ids[(row.ids >= 100) & (row.ids < 200)].tolist()
        assert kept == list(range(200 - len(kept), 200)), "the newest part of the prompt stays"
        if 0 in row.candidates:
            answer = row.ids[row.ids >= 200].tolist()
            assert answer == list(range(200, 200 + len(answer)))


@pytest.mark.parametrize("name", ["shared_prompt", "set_encoder", "ordered_pair"])
def test_cost_is_what_packing_gives(name):
    rng = np.random.default_rng(0)
    for _ in range(50):
        prompt = rng.integers(5, 9, rng.integers(0, 90)).astype(np.int32)
        answers = [rng.integers(5, 9, rng.integers(0, 90)).astype(np.int32) for _ in range(rng.integers(1, 5))]
        packed = layout(name).pack(prompt, answers)
        rows, longest = layout(name).cost(len(prompt), [len(a) for a in answers])
        assert (rows, longest if rows else 0) == (len(packed.rows), longest if rows else 0)
        assert packed.length == (longest if rows else 0)


def test_budget_goes_to_answers_first_and_slack_to_the_longer():
    assert split_budget(100, 50, [20, 20], 10) == (50, [20, 20])
    assert split_budget(100, 90, [20, 20], 10) == (60, [20, 20])
    assert split_budget(100, 90, [80, 80], 10) == (10, [45, 45])
    assert split_budget(100, 90, [10, 200], 10) == (10, [10, 80])
    assert split_budget(100, 4, [200], 10) == (4, [96])


def test_no_candidates_and_empty_texts():
    for name in ("shared_prompt", "set_encoder", "ordered_pair"):
        assert layout(name).pack(ids(10), []).rows == ()
        assert all(len(r.ids) for r in layout(name).pack(ids(), [ids(), ids()]).rows)


def test_plan_respects_the_budget_and_keeps_everything():
    rng = np.random.default_rng(1)
    lengths, rows = rng.integers(1, 50, 200).tolist(), rng.integers(1, 6, 200).tolist()
    cut = plan(lengths, rows, 300)
    assert sorted(i for batch in cut for i in batch) == list(range(200))
    for batch in cut:
        assert len(batch) == 1 or sum(rows[i] for i in batch) * max(lengths[i] for i in batch) <= 300


def test_plan_ends_a_batch_where_padding_costs_more_than_a_pass():
    lengths = [10, 10, 11, 12, 30, 31, 32, 90]
    for padding in (0, 5, 20, 1000):
        cut = plan(lengths, [1] * len(lengths), 1000, padding)
        assert sorted(i for batch in cut for i in batch) == list(range(len(lengths)))
        for batch in cut:
            assert sum(max(lengths[i] for i in batch) - lengths[i] for i in batch) <= padding
    assert plan(lengths, [1] * len(lengths), 1000, 5) == [[0, 1, 2, 3], [4, 5, 6], [7]]
    assert plan(lengths, [1] * len(lengths), 1000) == [list(range(8))]


def test_every_worker_gets_a_batch_where_there_are_enough_rows():
    text = layout("pointwise")
    items = units([text.pack(ids(10), [ids(20)]) for _ in range(12)])
    for workers in (1, 2, 3, 5):
        cut = list(batches(items, 1 << 20, workers, tight=True))
        assert len(cut) >= workers
        assert sum(map(len, cut)) == 12
        assert max(map(len, cut)) <= -(-12 // workers)


def test_collate_points_members_at_their_own_group():
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


def test_one_order_reads_every_pair_once_and_no_candidate_always_first():
    model, tokenizer = tiny("ordered_pair")
    both = TextPipeline(model.layout, tokenizer)
    one = TextPipeline(model.layout, tokenizer, average_orders=False)
    (tokens,) = both.tokenize([Group("What is it?", ("a b", "c", "d e f", "g", "h i"))])
    pairs = [row.candidates for row in one.pack(tokens).rows]
    assert len(pairs) == len(both.pack(tokens).rows) // 2
    assert {tuple(sorted(pair)) for pair in pairs} == set(combinations(range(5), 2))
    first = Counter(pair[0] for pair in pairs)
    assert set(first.values()) == {2}


def test_scores_of_one_order_are_those_of_the_logits_that_were_read():
    model, tokenizer = tiny("ordered_pair")
    group = Group("What is it?", ("a b", "c", "d e f"))
    pipeline = TextPipeline(model.layout, tokenizer, average_orders=False)

    def forward(arrays):  # the logit is the number of the pair's row
        rows = np.arange(1, len(arrays["input_ids"]) + 1, dtype=np.float32)
        return np.stack([rows, np.zeros_like(rows)], axis=1)[:, :, None]

    packed = pipeline.pack(pipeline.tokenize([group])[0])
    (result,) = score_groups(pipeline, [group], forward, 1 << 20)
    lengths = [len(row.ids) for row in packed.rows]
    expected = np.zeros(3)
    for logit, row in enumerate(sorted(range(3), key=lambda i: (lengths[i], i)), 1):
        i, j = packed.rows[row].candidates
        expected[i] += logit / 3
        expected[j] -= logit / 3
    np.testing.assert_allclose(result.scores, expected, rtol=1e-6)
    assert result.order_flips == 0


def test_one_order_of_an_order_free_model_is_refused():
    model, tokenizer = tiny("set_encoder")
    with pytest.raises(
        ConfigError, match="average_orders=False is for models that read .* layout 'set_encoder' has no order"
    ):
        TextPipeline(model.layout, tokenizer, average_orders=False)
