"""Formulas that training, parity and evaluation share, against values worked out otherwise."""

import math

import numpy as np
import pytest
from scipy import special, stats

from ranker import metrics
from ranker.records import Group, Message, Preference
from ranker.scoring.protocol import GroupScores, failed


def pair(prompt="p", **values):
    return Preference(prompt, ("a", "b"), ((1.0,), (0.0,)), **values)


def scored(*scores):
    return GroupScores(np.array(scores, np.float32), np.zeros(len(scores), bool))


def compared(logits, targets, prompts=None):
    count = len(logits)
    prompts = np.arange(count) if prompts is None else np.array(prompts)
    return metrics.Comparisons(
        np.array(logits, float), np.array(targets, float), np.arange(count), np.zeros((count, 2), np.intp), prompts
    )


def test_sigmoid_is_the_logistic_function():
    x = np.linspace(-40, 40, 101)
    np.testing.assert_allclose(metrics.sigmoid(x), special.expit(x), rtol=1e-14)


def test_sigmoid_of_large_logits_does_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        assert metrics.sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_sigmoid_of_a_number_is_a_number():
    assert isinstance(metrics.sigmoid(0.3), float)


def test_sigmoid_of_fp32_is_computed_in_fp64():
    assert metrics.sigmoid(np.zeros(2, np.float32)).dtype == np.float64


def test_sigmoid_of_nan_is_nan():
    with np.errstate(invalid="ignore"):
        assert math.isnan(metrics.sigmoid(math.nan))


def test_top_margin_is_the_lead_over_the_second():
    assert metrics.top_margin(np.array([1.0, 4.0, 3.5], np.float32)) == 0.5


def test_top_margin_of_equals_is_zero():
    assert metrics.top_margin(np.array([2.0, 2.0])) == 0.0


@pytest.mark.parametrize("scores", [[], [1.0]])
def test_top_margin_of_fewer_than_two_is_none(scores):
    assert metrics.top_margin(np.array(scores)) is None


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 7), (50, 100), (100, 100)])
def test_wilson_is_the_interval_of_scipy(successes, n):
    share = metrics.wilson(successes, n)
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (share.low, share.high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))
    assert (share.value, share.n) == (successes / n, n)


def test_wilson_of_no_trials_is_nan():
    share = metrics.wilson(0, 0)
    assert share.n == 0
    assert all(map(math.isnan, (share.value, share.low, share.high)))


def test_an_estimate_shows_its_interval_and_count():
    assert str(metrics.Share(0.5, 0.25, 0.75, 8)) == "0.500 [0.250, 0.750] (n=8)"


def test_clustered_with_one_comparison_per_prompt_is_wilson():
    credits = np.array([1.0, 0.0, 1.0, 1.0])
    assert metrics.clustered(credits, np.arange(4)) == metrics.wilson(3, 4)


def test_clustered_of_one_prompt_has_no_interval():
    share = metrics.clustered(np.array([1.0, 0.0]), np.array([7, 7]))
    assert share.value == 0.5
    assert math.isnan(share.low)
    assert math.isnan(share.high)


def test_clustered_counts_repeated_comparisons_once():
    """Two equal comparisons of each prompt say no more than one; n - 1 of n prompts widens the interval a little."""
    once = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    share = metrics.clustered(np.repeat(once, 2), np.repeat(np.arange(6), 2))
    p = once.mean()
    variance = ((once - p) ** 2).sum() / 6**2 * 6 / 5
    effective = p * (1 - p) / variance
    expected = metrics.wilson(p * effective, effective)
    assert (share.value, share.n) == (pytest.approx(p), 12)
    assert (share.low, share.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_clustered_without_variance_counts_prompts():
    share = metrics.clustered(np.ones(6), np.array([0, 0, 1, 1, 2, 2]))
    assert share.low == pytest.approx(metrics.wilson(3, 3).low)


def test_rows_with_the_same_prompt_text_have_one_number():
    rows = [pair("a"), pair("b"), pair((Message("user", "a"),)), pair("b")]
    assert metrics.prompt_numbers(rows).tolist() == [0, 1, 0, 1]


def test_rows_without_a_prompt_have_numbers_of_their_own():
    assert len(set(metrics.prompt_numbers([pair(""), pair(""), pair("")]).tolist())) == 3


def test_comparisons_are_the_differences_of_scores():
    rows = [Preference("p", ("a", "b", "c"), ((2.0,), (1.0,), (1.0,)))]
    outcome = metrics.comparisons(rows, [scored(5.0, 3.0, 2.0)])
    assert outcome.logits.tolist() == [2.0, 3.0, 1.0]
    assert outcome.targets.tolist() == [1.0, 1.0, 0.5]
    assert outcome.indices.tolist() == [[0, 1], [0, 2], [1, 2]]


def test_comparisons_leave_out_failed_rows_and_keep_their_place():
    rows = [pair("a"), pair("b"), pair("a")]
    results = [scored(1.0, 0.0), failed(Group("b", ("a", "b")), "broken"), scored(0.0, 1.0)]
    outcome = metrics.comparisons(rows, results)
    assert outcome.groups.tolist() == [0, 2]
    assert outcome.prompts.tolist() == [0, 0]
    assert outcome.logits.tolist() == [1.0, -1.0]


def test_comparisons_leave_out_missing_labels():
    rows = [Preference("p", ("a", "b"), ((math.nan,), (1.0,)))]
    assert len(metrics.comparisons(rows, [scored(1.0, 0.0)]).logits) == 0


def test_the_target_of_several_tasks_is_the_share_that_prefers_the_left():
    rows = [Preference("p", ("a", "b"), ((1.0, 0.0, math.nan), (0.0, 1.0, 1.0)))]
    assert metrics.comparisons(rows, [scored(1.0, 0.0)]).targets.tolist() == [0.5]


def test_comparisons_of_nothing_are_empty():
    outcome = metrics.comparisons([], [])
    assert outcome.indices.shape == (0, 2)
    assert len(outcome.prompts) == 0


def test_credit_of_a_tied_logit_is_half():
    outcome = metrics.credit(compared([2.0, -2.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]))
    assert outcome.tolist() == [1.0, 0.0, 0.5, 0.0]


def test_accuracy_counts_ties_half():
    assert metrics.accuracy(compared([2.0, 0.0, -1.0, 1.0], [1.0, 1.0, 1.0, 0.0])).value == 1.5 / 4


def test_accuracy_leaves_out_labels_that_are_ties():
    share = metrics.accuracy(compared([2.0, -3.0], [1.0, 0.5]))
    assert (share.value, share.n) == (1.0, 1)


def test_log_loss_is_the_cross_entropy_of_the_probability():
    logits, targets = np.array([2.0, -1.0, 0.3]), np.array([1.0, 0.0, 0.7])
    p = special.expit(logits)
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
    assert metrics.log_loss(compared(logits, targets)) == pytest.approx(expected)


def test_log_loss_of_large_logits_is_finite():
    assert metrics.log_losses(compared([1e4, -1e4], [0.0, 0.0])).tolist() == [1e4, 0.0]


def test_brier_is_the_squared_error_of_the_probability():
    assert metrics.brier(compared([0.0, 1e3], [1.0, 1.0])) == pytest.approx(0.125)


@pytest.mark.parametrize("formula", [metrics.log_loss, metrics.brier])
def test_a_mean_of_no_comparisons_is_nan(formula):
    assert math.isnan(formula(compared([], [])))


def test_leads_are_towards_the_preferred_answer():
    assert metrics.leads(compared([2.0, -3.0], [1.0, 0.0])).tolist() == [2.0, 3.0]


def test_a_summary_has_every_figure():
    rows = [pair("a"), pair("b"), pair("c"), pair("d")]
    results = [scored(2.0, 0.0), scored(0.0, 1.0), scored(1.0, 1.0), failed(Group("d", ("a", "b")), "broken")]
    summary = metrics.pairwise_summary(rows, results)
    assert (summary.accuracy.value, summary.accuracy.n) == (0.5, 3)
    assert (summary.ties, summary.failed) == (1, 1)
    assert summary.mean_margin == pytest.approx((2 - 1 + 0) / 3)


def test_a_summary_of_failed_rows_only_has_no_figures():
    summary = metrics.pairwise_summary([pair()], [failed(Group("p", ("a", "b")), "broken")])
    assert (summary.accuracy.n, summary.failed) == (0, 1)
    assert math.isnan(summary.mean_margin)
