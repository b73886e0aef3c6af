"""Every statistic against an independent computation."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, kendalltau, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ndcg_score

from ranker.evaluation.statistics import agreement, best_of_n, bootstrap, calibration, length, paired
from ranker.metrics import Comparisons, comparisons
from ranker.records import Preference
from ranker.scoring.protocol import GroupScores, failed


def made(logits, targets, groups=None):
    n = len(logits)
    groups = (np.arange(n) if groups is None else np.asarray(groups)).astype(np.intp)
    return Comparisons(np.array(logits, float), np.array(targets, float), groups, np.tile([0, 1], (n, 1)), groups)


def noisy(n=4000, temperature=1.0, seed=0):
    """Comparisons whose labels come up as often as ``sigmoid(logit / temperature)`` says."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=n) * 2
    return made(logits, rng.random(n) < 1 / (1 + np.exp(-logits / temperature)))


def scored(*rows):
    return [GroupScores(np.array(row, np.float32), np.zeros(len(row), np.bool_)) for row in rows]


def test_an_interval_of_a_mean_covers_it_as_often_as_it_says():
    inside = []
    for seed in range(100):
        found = bootstrap.mean(np.random.default_rng(seed).exponential(size=60))
        inside.append(found.low <= 1 <= found.high)
        assert found.low <= found.value <= found.high
        assert found.n == 60
    assert 0.86 <= np.mean(inside) <= 0.99
    assert bootstrap.mean(np.array([np.nan, 2.0])).value == 2
    assert bootstrap.mean(np.zeros(0)).n == 0


def test_rows_of_a_prompt_are_drawn_together():
    values = np.repeat(np.random.default_rng(0).normal(size=20), 50)
    groups = np.repeat(np.arange(20), 50)
    together = bootstrap.clustered(groups, lambda rows: float(values[rows].mean()))
    apart = bootstrap.clustered(np.arange(1000), lambda rows: float(values[rows].mean()))
    assert together.value == pytest.approx(values.mean())
    assert together.high - together.low > 4 * (apart.high - apart.low)
    assert (together.n, apart.n) == (20, 1000)


def test_calibration_error_by_hand():
    found = made([2.0, 2.0, -1.0], [1, 0, 1])
    both = np.array([2.0, 2.0, -1.0, -2.0, -2.0, 1.0])
    outcome = np.array([1, 0, 1, 0, 1, 0.0])
    chance = 1 / (1 + np.exp(-both))
    assert calibration.expected_calibration_error(found) == pytest.approx(np.abs(chance - outcome).mean())


def test_who_says_the_truth_is_calibrated_and_who_brags_is_not():
    honest, loud = noisy(), noisy(temperature=3.0)
    assert calibration.reliability(honest).error.high < 0.03
    found = calibration.reliability(loud)
    assert found.error.low > 0.1
    assert found.counts.sum() == 2 * len(loud.logits)
    assert (np.diff(found.predicted) >= 0).all()
    np.testing.assert_allclose(found.predicted + found.predicted[::-1], 1, atol=2e-3)


def test_the_temperature_that_labels_were_made_with_is_found_on_one_half():
    found = calibration.temperature(noisy(20000, temperature=3.0))
    assert found.value == pytest.approx(3.0, rel=0.05)
    assert found.after < found.before
    assert found.n == 10000
    with pytest.raises(ValueError, match="at least two prompts"):
        calibration.temperature(made([1.0], [1]))


def test_a_temperature_at_the_end_of_its_search_or_that_makes_matters_worse_has_a_problem():
    assert calibration.temperature(noisy(20000, temperature=3.0)).problem == ""
    always_right = made(np.full(60, 2.0), np.ones(60))
    assert "found no best temperature" in calibration.temperature(always_right).problem
    hopeless = made(np.random.default_rng(0).normal(size=600), np.random.default_rng(1).integers(0, 2, 600))
    assert calibration.temperature(hopeless).problem
    turned = made(np.full(60, 2.0), [1, 0] * 30)  # prompts of one half are right, those of the other wrong
    worse = calibration.temperature(turned)
    assert worse.after > worse.before or "no best temperature" in worse.problem
    assert worse.problem


def preferences(lengths, gold):
    return [
        Preference(f"p{k}", tuple("x" * n for n in own), tuple((float(s),) for s in scores))
        for k, (own, scores) in enumerate(zip(lengths, gold, strict=True))
    ]


def test_length_bias_is_what_scipy_and_scikit_learn_say():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, size=(300, 4))
    gold = rng.normal(size=(300, 4))
    scores = gold + 0.02 * lengths
    rows, results = preferences(lengths, gold), scored(*scores)
    found = comparisons(rows, results)
    measured = length.length_bias(rows, results, found, relative=True)
    expected = np.mean([spearmanr(a, b).statistic for a, b in zip(lengths, scores, strict=True)])
    assert measured.correlation.value == pytest.approx(expected, abs=1e-6)
    assert measured.correlation.n == 300
    pairs = [(k, i, j) for k in range(300) for i, j in combinations(range(4), 2)]
    better = [(k, i, j) if gold[k, i] > gold[k, j] else (k, j, i) for k, i, j in pairs]
    right = np.array([scores[k, i] > scores[k, j] for k, i, j in better])
    ratio = np.array([np.log((lengths[k, i] + 1) / (lengths[k, j] + 1)) for k, i, j in better])
    assert measured.longer.value == pytest.approx(right[ratio > 0].mean())
    assert measured.shorter.value == pytest.approx(right[ratio < 0].mean())
    assert measured.longer.n + measured.shorter.n + measured.equal.n == len(pairs)
    model = LogisticRegression(C=1e8).fit(ratio[:, None], right)
    assert measured.controlled.value == pytest.approx(model.predict_proba([[0.0]])[0, 1], abs=1e-3)


def test_best_of_n_is_the_mean_over_all_draws():
    rng = np.random.default_rng(0)
    gold, scores = rng.normal(size=7), rng.normal(size=7)
    scores[2] = scores[5]
    for n in range(1, 8):
        draws = []
        for chosen in combinations(range(7), n):
            own = np.array(chosen)
            best = own[scores[own] == scores[own].max()]
            draws.append(gold[best].mean())
        assert best_of_n.expected(gold, scores, n) == pytest.approx(np.mean(draws))
    distinct = rng.normal(size=7)
    for n in range(1, 8):
        draws = [gold[max(chosen, key=lambda i: distinct[i])] for chosen in combinations(range(7), n)]
        assert best_of_n.expected(gold, distinct, n) == pytest.approx(np.mean(draws))
    with pytest.raises(ValueError, match="between 1 and 7"):
        best_of_n.expected(gold, scores, 8)


def test_the_curve_has_its_ends_and_its_divergence():
    gold = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 1], [float("nan"), 1, 2, 3]]
    results = scored([0, 1, 2, 3], [0, 1, 2, 3], [0, 1], [0, 1, 2, 3])
    one, four = best_of_n.best_of_n(gold, results, (1, 4))
    assert (one.chosen.n, four.chosen.n) == (3, 2)
    assert one.chosen.value == pytest.approx(one.random.value) == pytest.approx((1.5 + 1.5 + 1) / 3)
    assert (four.chosen.value, four.oracle.value) == (1.5, 3)
    assert (one.kl, four.kl) == (0, pytest.approx(np.log(4) - 0.75))


def test_agreement_is_scipys_and_scikit_learns():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 4, size=(20, 6)).astype(float)
    scores = gold + rng.normal(size=gold.shape)
    found = agreement.agreement(
        [*gold, [1, 1, 1], [1, 2]], [*scored(*scores, [1, 2, 3]), failed(preferences([[1, 2]], [[1, 2]])[0].group, "x")]
    )
    assert found.tau_b.n == found.ndcg.n == 20
    single = scores.astype(np.float32).astype(float)
    assert found.tau_b.value == pytest.approx(
        np.mean([kendalltau(g, s).statistic for g, s in zip(gold, single, strict=True)])
    )
    assert found.spearman.value == pytest.approx(
        np.mean([spearmanr(g, s).statistic for g, s in zip(gold, single, strict=True)])
    )
    expected = np.mean([ndcg_score([g - g.min()], [s]) for g, s in zip(gold, single, strict=True)])
    assert found.ndcg.value == pytest.approx(expected)


def test_ndcg_with_equal_scores_is_scikit_learns():
    gold, scores = np.array([3.0, 1, 2, 0, 1]), np.array([1.0, 1, 2, 0, 1])
    assert agreement.ndcg(gold, scores) == pytest.approx(ndcg_score([gold - gold.min()], [scores]))


def test_mcnemar_counts_who_alone_was_right():
    first = made([1, 1, -1, 1, 0, 1], [1, 1, 1, 0, 1, 0.5])
    second = made([1, -1, 1, -1, 1, -1], [1, 1, 1, 0, 1, 0.5])
    found = paired.paired(first, second)
    assert (found.first_only, found.second_only) == (1, 3)
    assert found.p_value == pytest.approx(binomtest(1, 4).pvalue)
    assert found.difference.value == pytest.approx((-1 + 1 + 1 + 0.5) / 5)
    assert found.difference.n == 5
    assert not found.worse
    assert paired.paired(first, made([1], [1], [99])) is None


def test_a_model_that_lost_much_is_worse():
    rng = np.random.default_rng(0)
    good = made(np.ones(500), np.ones(500))
    bad = made(np.where(rng.random(500) < 0.2, -1, 1), np.ones(500))
    assert paired.paired(good, bad).worse
    assert not paired.paired(bad, good).worse
    same = paired.paired(good, good)
    assert (same.p_value, same.difference.value) == (1.0, 0.0)
