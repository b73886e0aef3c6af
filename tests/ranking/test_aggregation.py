import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from ranker.ranking import aggregation
from ranker.ranking.aggregation import AGGREGATORS, Comparisons, cycles, least_squares, win_matrix


def some(n=6, m=40, seed=0):
    """Noisy comparisons with a bias towards the first."""
    rng = np.random.default_rng(seed)
    strengths = rng.normal(size=n)
    pairs = [tuple(rng.choice(n, 2, replace=False).tolist()) for _ in range(m)]
    logits = [2 * (strengths[a] - strengths[b]) + rng.normal() + 0.7 for a, b in pairs]
    seen = Comparisons(n)
    seen.add(pairs, logits)
    return seen, strengths


def test_least_squares_is_numpys_with_a_bias():
    seen, _ = some()
    design = np.zeros((len(seen), 7))
    for row, (a, b) in enumerate(zip(seen.first, seen.second, strict=True)):
        design[row, a], design[row, b], design[row, 6] = 1, -1, 1
    expected, *_ = np.linalg.lstsq(design, seen.logits, rcond=None)
    aggregate = least_squares(seen)
    np.testing.assert_allclose(aggregate.scores, expected[:6] - expected[:6].mean(), atol=1e-8)
    np.testing.assert_allclose(aggregate.bias, expected[6], atol=1e-8)


def test_least_squares_of_all_ordered_pairs_is_their_mean_difference():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(5, 5))
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    seen = Comparisons(5)
    seen.add(pairs, [logits[pair] for pair in pairs])
    np.fill_diagonal(logits, 0)
    np.testing.assert_allclose(least_squares(seen).scores, ((logits - logits.T) / 2).sum(axis=1) / 5, atol=1e-9)


def test_errors_cover_the_truth_as_often_as_they_say():
    inside = []
    for seed in range(200):
        seen, strengths = some(n=5, m=60, seed=seed)
        aggregate = least_squares(seen)
        truth = 2 * (strengths - strengths.mean())
        inside += (np.abs(aggregate.scores - truth) < 1.96 * aggregate.errors).tolist()
    assert 0.92 < np.mean(inside) < 0.97


def test_bradley_terry_is_scipys_maximum():
    seen, _ = some()
    won = 1 / (1 + np.exp(-seen.logits))

    def loss(scores):
        difference = scores[seen.first] - scores[seen.second]
        likelihood = -won * np.logaddexp(0, -difference) - (1 - won) * np.logaddexp(0, difference)
        return -likelihood.sum() + aggregation.RIDGE / 2 * (scores**2).sum()

    expected = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9}).x
    aggregate = aggregation.bradley_terry(seen)
    np.testing.assert_allclose(aggregate.scores, expected - expected.mean(), atol=1e-5)
    assert (aggregate.errors > 0).all()


def test_one_who_wins_always_has_a_finite_strength():
    seen = Comparisons(3)
    seen.add([(0, 1), (0, 2), (1, 2)], [50.0, 50.0, 50.0])
    scores = aggregation.bradley_terry(seen).scores
    assert np.isfinite(scores).all()
    assert scores[0] > scores[1] > scores[2]


def test_shares_by_hand():
    seen = Comparisons(3)
    seen.add([(0, 1), (2, 0), (1, 2)], [1.0, -2.0, 0.0])
    np.testing.assert_allclose(aggregation.win_rate(seen).scores, np.array([1, 0.25, 0.25]) - 0.5)
    chance = 1 / (1 + np.exp(-np.array([1.0, 2.0])))
    expected = np.array([chance.mean(), (1 - chance[0] + 0.5) / 2, (1 - chance[1] + 0.5) / 2])
    np.testing.assert_allclose(aggregation.mean_probability(seen).scores, expected - expected.mean())


def test_confidence_of_two_is_the_normal_probability():
    aggregate = aggregation.Aggregate(np.array([0.5, -0.5]), np.array([[0.25, -0.25], [-0.25, 0.25]]))
    assert aggregate.confidence() == pytest.approx(norm.cdf(1 / np.sqrt(1.0)), abs=0.02)
    assert aggregation.Aggregate(np.zeros(1), np.zeros((1, 1))).confidence() == 1
    sure = aggregation.Aggregate(np.array([5.0, -5.0]), np.zeros((2, 2)))
    assert sure.confidence() == 1


def test_the_win_matrix_is_the_mean_over_orders_and_empty_where_none_met():
    seen = Comparisons(3)
    seen.add([(0, 1), (1, 0)], [2.0, 1.0])
    up, down = (1 / (1 + np.exp(-x)) for x in (2.0, 1.0))
    matrix = win_matrix(seen)
    assert matrix[0, 1] == pytest.approx((up + 1 - down) / 2)
    assert matrix[0, 1] + matrix[1, 0] == pytest.approx(1)
    assert np.isnan(matrix[0, 2])


def test_rock_paper_scissors_goes_round():
    seen = Comparisons(4)
    seen.add([(0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)], [1.0] * 6)
    assert cycles(seen) == (1, 4)


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
@pytest.mark.parametrize("n", [1, 2, 3])
def test_nothing_compared_is_no_opinion(name, n):
    aggregate = AGGREGATORS[name](Comparisons(n))
    np.testing.assert_array_equal(aggregate.scores, np.zeros(n))


@pytest.mark.parametrize("logits", [[1.0], [1.0, float("nan")]])
def test_a_round_has_a_finite_logit_for_each_pair(logits):
    with pytest.raises(ValueError, match="expected a finite logit for each of 2 pairs"):
        Comparisons(3).add([(0, 1), (1, 2)], logits)


def test_three_that_all_draw_do_not_go_round():
    seen = Comparisons(3)
    seen.add([(0, 1), (1, 2), (2, 0)], [0.0, 0.0, 0.0])
    assert cycles(seen) == (0, 1)
