"""Scores of groups by forward passes."""

import threading

import numpy as np
import pytest

from ranker.records import Group
from ranker.scoring.executor import CHUNK_GROUPS, Engine, parallel_map, prefetched, score_groups
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.token_budget import TokenBudget
from tests.support.graphs import SumOfTokens
from tests.support.layouts import layout
from tests.support.texts import CharacterTokenizer, ids_of

BAD = ids_of("!")[0]


def pipeline(name="pointwise", *, prefix_sharing=False, average_orders=True, **changes):
    return TextPipeline(
        layout(name, **changes), CharacterTokenizer(), prefix_sharing=prefix_sharing, average_orders=average_orders
    )


def has_bad(arrays):
    """Whether a pass reads the character ``!``."""
    return (arrays["input_ids"] == BAD).any()


def scores(groups, forward=None, *, text=None, tokens=10_000, **options):
    results = score_groups(text or pipeline(), groups, forward or SumOfTokens(), tokens, **options)
    return [result.scores.tolist() for result in results]


GROUPS = [Group(f"prompt {i}", tuple("answer"[: 1 + (i + j) % 6] for j in range(i % 4))) for i in range(20)]


def test_results_have_the_order_of_the_groups():
    assert scores(GROUPS) == [scores([group])[0] for group in GROUPS]


@pytest.mark.parametrize("tokens", [1, 40, 200])
def test_scores_do_not_depend_on_the_budget(tokens):
    assert scores(GROUPS, tokens=tokens) == scores(GROUPS)


def test_passes_stay_within_the_budget():
    forward = SumOfTokens()
    score_groups(pipeline(), GROUPS, forward, 60)
    assert max(arrays["input_ids"].size for arrays in forward.batches) <= 60


def test_a_group_without_candidates_has_no_scores():
    (result,) = score_groups(pipeline(), [Group("p", ())], SumOfTokens(), 100)
    assert result.scores.shape == result.truncated.shape == (0,)
    assert result.error is None


def test_no_groups_have_no_results():
    assert score_groups(pipeline(), [], SumOfTokens(), 100) == []


def test_equal_candidates_get_equal_scores():
    ((first, other, second),) = scores([Group("p", ("same", "other", "same"))])
    assert first == second != other


def test_equal_candidates_are_read_once():
    forward = SumOfTokens()
    score_groups(pipeline(), [Group("p", ("same", "other", "same"))], forward, 100)
    assert len(forward.rows) == 2


def test_candidates_are_read_in_sorted_order():
    forward = SumOfTokens(columns=3)
    score_groups(pipeline("shared_prompt"), [Group("p", ("c", "a", "b"))], forward, 100)
    (row,) = forward.rows
    assert [token for token in row if token in ids_of("abc")] == ids_of("abc")


def test_scores_follow_the_candidates_whatever_their_order():
    forward = SumOfTokens(columns=3)
    ((a, b, c),) = scores([Group("p", ("x", "y", "z"))], forward, text=pipeline("shared_prompt"))
    ((c_again, a_again, b_again),) = scores([Group("p", ("z", "x", "y"))], forward, text=pipeline("shared_prompt"))
    assert (a, b, c) == (a_again, b_again, c_again)


def test_preserve_order_reads_candidates_as_they_come():
    forward = SumOfTokens(columns=4)
    score_groups(pipeline("shared_prompt"), [Group("p", ("c", "a", "b", "a"))], forward, 200, preserve_order=True)
    (row,) = forward.rows
    assert [token for token in row if token in ids_of("abc")] == ids_of("caba")


def test_flags_of_truncation_follow_the_candidates():
    (result,) = score_groups(pipeline(), [Group("p", ("z", "a" * 100, "z"))], SumOfTokens(), 1000)
    assert result.truncated.tolist() == [False, True, False]
    assert not result.prompt_truncated


def test_a_failing_batch_is_halved_down_to_the_failing_row():
    forward = SumOfTokens(fails=has_bad)
    groups = [Group("p", (f"answer {i}",)) for i in range(8)]
    groups[5] = Group("p", ("answer !",))
    results = score_groups(pipeline(), groups, forward, 10_000)
    assert [result.error is None for result in results] == [True] * 5 + [False] + [True] * 2
    assert [len(arrays["input_ids"]) for arrays in forward.batches] == [8, 4, 4, 2, 2, 1, 1]


def test_the_others_of_a_failing_batch_keep_their_scores():
    groups = [Group("p", (f"answer {i}",)) for i in range(8)]
    expected = scores(groups)
    actual = scores([*groups, Group("p", ("answer !",))], SumOfTokens(fails=has_bad))
    assert actual[:8] == expected


def test_a_row_that_fails_is_an_error_of_its_group_with_the_reason():
    (result,) = score_groups(pipeline(), [Group("p", ("!", "a"))], SumOfTokens(fails=has_bad), 100)
    assert result.error == "the model failed on this row: out of memory"
    assert np.isnan(result.scores).all()
    assert result.scores.shape == (2,)


def test_a_failure_without_retry_is_raised():
    with pytest.raises(MemoryError, match="out of memory"):
        score_groups(pipeline(), [Group("p", ("!",))], SumOfTokens(fails=has_bad), 100, retry=False)


def test_a_failing_row_of_shared_prompts_is_split_into_its_answers():
    text = pipeline(prefix_sharing=True)

    def forward(arrays):  # more than one answer to a row is too much
        if (arrays["block_ids"] > 1).any():
            raise MemoryError("out of memory")
        return arrays["input_ids"].sum(1).astype(np.float32)[:, None, None]

    (result,) = score_groups(text, [Group("a prompt", ("a", "b"))], forward, 100)
    assert result.error is None
    assert result.scores[1] - result.scores[0] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error_of_its_row(value):
    def forward(arrays):
        bad = (arrays["input_ids"] == BAD).any(1)
        return np.where(bad, value, 1.0).astype(np.float32)[:, None, None]

    good, bad = score_groups(pipeline(), [Group("p", ("a",)), Group("p", ("!", "a"))], forward, 100)
    assert (good.error, good.scores.tolist()) == (None, [1.0])
    assert bad.error == "the model gave NaN or infinity for this row; its weights or precision are at fault"
    assert np.isnan(bad.scores).all()


def numbered(arrays):
    """Logits of pairs: the first answer's is the number of the row, from 1."""
    rows = np.arange(1, len(arrays["input_ids"]) + 1, dtype=np.float32)
    return np.stack([rows, np.zeros_like(rows)], axis=1)[:, :, None]


def test_both_orders_of_a_pair_are_averaged():
    # The rows are (0, 1) with logit 1 and (1, 0) with logit 2: the order-averaged margin is (1 - 2) / 2.
    ((first, second),) = scores([Group("p", ("a", "b"))], numbered, text=pipeline("ordered_pair"))
    assert first - second == pytest.approx(-0.5)


def test_order_flips_count_pairs_whose_winner_changes_with_the_order():
    groups = [Group("p", ("a", "b", "c"))]
    (always_first,) = score_groups(pipeline("ordered_pair"), groups, numbered, 1000)
    assert always_first.order_flips == 3


def test_a_position_bias_cancels_in_both_orders():
    def forward(arrays):  # the first answer's logit is 5, whatever it says
        return np.tile(np.array([[[5.0], [0.0]]], np.float32), (len(arrays["input_ids"]), 1, 1))

    assert scores([Group("p", ("a", "b", "c"))], forward, text=pipeline("ordered_pair")) == [[0.0, 0.0, 0.0]]


def test_differences_of_scores_are_the_margins_of_consistent_logits():
    worth = dict(zip(ids_of("abc"), (0.5, 2.0, -1.0), strict=True))

    def forward(arrays):
        rows = [[worth[token] for token in row.tolist() if token in worth] for row in arrays["input_ids"]]
        return np.array(rows, np.float32)[:, :, None]

    ((a, b, c),) = scores([Group("p", ("a", "b", "c"))], forward, text=pipeline("ordered_pair"))
    assert (b - a, a - c) == (pytest.approx(1.5), pytest.approx(1.5))


def test_one_order_takes_the_logit_of_a_pair_for_both():
    text = pipeline("ordered_pair", average_orders=False)
    group = Group("p", ("a b", "c", "d e f"))
    packed = text.pack(text.tokenize([group])[0])
    (result,) = score_groups(text, [group], numbered, 1 << 20)
    lengths = [len(row.ids) for row in packed.rows]
    expected = np.zeros(3)
    for logit, row in enumerate(sorted(range(3), key=lambda i: (lengths[i], i)), 1):
        i, j = packed.rows[row].candidates
        expected[i] += logit / 3
        expected[j] -= logit / 3
    np.testing.assert_allclose(result.scores, expected, rtol=1e-6)
    assert result.order_flips == 0


def test_a_lone_candidate_of_ordered_pairs_scores_zero():
    assert scores([Group("p", ("a",))], SumOfTokens(columns=2), text=pipeline("ordered_pair")) == [[0.0]]


def test_a_lone_candidate_of_steamshp_is_compared_with_the_empty_answer():
    # The rows are (answer, empty) with logit 1 and (empty, answer) with logit 2.
    (result,) = score_groups(pipeline("steamshp"), [Group("p", ("a",))], numbered, 1000)
    assert result.scores.tolist() == [pytest.approx(-0.5)]
    assert result.order_flips == 0


def test_many_groups_are_read_slice_by_slice_in_order_with_a_budget_found_on_the_way():
    groups = [Group(f"prompt {i % 7}", (f"answer {i}", f"{i} " * (i % 5 + 1))) for i in range(3 * CHUNK_GROUPS)]
    forward = SumOfTokens()
    budget = TokenBudget((64, 256))
    actual = scores(groups, forward, tokens=budget)
    assert budget.settled
    assert max(arrays["input_ids"].size for arrays in forward.batches) <= 256
    assert actual == scores(groups)


def test_parallel_passes_are_used_where_there_is_enough_work():
    single, several = SumOfTokens(), SumOfTokens()
    actual = scores(GROUPS, single, parallel=Engine(several, workers=2))
    assert not single.batches
    assert several.batches
    assert actual == scores(GROUPS)


def test_parallel_passes_are_not_used_for_little_work():
    single, several = SumOfTokens(), SumOfTokens()
    scores([Group("p", ("a",))], single, parallel=Engine(several, workers=2))
    assert single.batches
    assert not several.batches


def test_a_failure_of_parallel_passes_is_an_error_of_its_row():
    forward = SumOfTokens(fails=has_bad)
    results = score_groups(pipeline(), [*GROUPS, Group("p", ("!",))], forward, 60, parallel=Engine(forward, workers=2))
    assert [result.error is None for result in results] == [True] * len(GROUPS) + [False]


def test_parallel_map_keeps_the_order():
    assert list(parallel_map(lambda x: x * x, range(20), 3)) == [x * x for x in range(20)]


def test_parallel_map_runs_several_at_once():
    both = threading.Barrier(2, timeout=10)
    assert list(parallel_map(lambda _: both.wait() >= 0, [0, 1], 2)) == [True, True]


def test_the_next_item_is_prefetched_while_the_last_is_used():
    started = [threading.Event() for _ in range(4)]

    def items():
        for i in range(3):
            started[i].set()
            yield i

    ahead = prefetched(items())
    assert next(ahead) == 0
    assert started[1].wait(10)
    assert not started[2].is_set()
    assert list(ahead) == [1, 2]


def test_an_error_of_a_prefetched_item_is_raised_in_its_place():
    def items():
        yield 1
        raise ValueError("broken text")

    got = []
    with pytest.raises(ValueError, match="broken text"):
        got.extend(prefetched(items()))
    assert got == [1]


def test_a_pass_that_runs_out_of_memory_is_halved_and_later_ones_are_smaller(caplog):
    sizes = []
    plain = SumOfTokens()

    def forward(arrays):
        sizes.append(arrays["input_ids"].size)
        if sizes[-1] > 100:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(arrays)

    groups = [Group(f"p{n}", ("a", "bb", "ccc")) for n in range(40)]
    budget = TokenBudget((400,))
    expected = score_groups(pipeline(), groups, SumOfTokens(), 400)
    for _ in range(2):
        tried = len(sizes)
        for a, b in zip(expected, score_groups(pipeline(), groups, forward, budget), strict=True):
            np.testing.assert_array_equal(a.scores, b.scores)
    assert max(sizes[:tried]) > 100
    assert max(sizes[tried:]) <= budget.tokens < 400
    assert "out of memory with" in caplog.text
    assert "later passes have at most" in caplog.text
