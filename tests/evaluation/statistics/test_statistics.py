"""Every statistic against an independent computation."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, kendalltau, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ndcg_score

from ranker.evaluation.report import tables
from ranker.evaluation.statistics import agreement, best_of_n, bootstrap, calibration, length, paired
from ranker.metrics import Comparisons, comparisons
from ranker.records import Preference
from ranker.scoring.protocol import GroupScores, failed


def comparisons_of(logits, targets, groups=None):
    n = len(logits)
    groups = (np.arange(n) if groups is None else np.asarray(groups)).astype(np.intp)
    return Comparisons(np.array(logits, float), np.array(targets, float), groups, np.tile([0, 1], (n, 1)), groups)


def noisy(n=4000, temperature=1.0, seed=0):
    """Comparisons whose labels come up as often as ``sigmoid(logit / temperature)`` says."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=n) * 2
    return comparisons_of(logits, rng.random(n) < 1 / (1 + np.exp(-logits / temperature)))


def scored(*rows):
    return [GroupScores(np.array(row, np.float32), np.zeros(len(row), np.bool_)) for row in rows]


def test_an_interval_of_a_mean_covers_it_as_often_as_it_says():
    inside = []
    for seed in range(100):
        result = bootstrap.mean(np.random.default_rng(seed).exponential(size=60))
        inside.append(result.low <= 1 <= result.high)
        assert result.low <= result.value <= result.high
        assert result.n == 60
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
    result = comparisons_of([2.0, 2.0, -1.0], [1, 0, 1])
    both = np.array([2.0, 2.0, -1.0, -2.0, -2.0, 1.0])
    outcome = np.array([1, 0, 1, 0, 1, 0.0])
    chance = 1 / (1 + np.exp(-both))
    assert calibration.expected_calibration_error(result) == pytest.approx(np.abs(chance - outcome).mean())


def test_who_says_the_truth_is_calibrated_and_who_brags_is_not():
    honest, loud = noisy(), noisy(temperature=3.0)
    assert calibration.reliability(honest).error.high < 0.03
    result = calibration.reliability(loud)
    assert result.error.low > 0.1
    assert result.counts.sum() == 2 * len(loud.logits)
    assert (np.diff(result.predicted) >= 0).all()
    np.testing.assert_allclose(result.predicted + result.predicted[::-1], 1, atol=2e-3)


def test_the_temperature_that_labels_were_made_with_is_found_on_one_half():
    result = calibration.temperature(noisy(20000, temperature=3.0))
    assert result.value == pytest.approx(3.0, rel=0.05)
    assert result.after < result.before
    assert result.n == 10000
    with pytest.raises(ValueError, match="at least two prompts"):
        calibration.temperature(comparisons_of([1.0], [1]))


def test_a_temperature_at_the_end_of_its_search_or_that_makes_matters_worse_has_a_problem():
    assert calibration.temperature(noisy(20000, temperature=3.0)).problem == ""
    always_right = comparisons_of(np.full(60, 2.0), np.ones(60))
    assert "found no best temperature" in calibration.temperature(always_right).problem
    hopeless = comparisons_of(np.random.default_rng(0).normal(size=600), np.random.default_rng(1).integers(0, 2, 600))
    assert calibration.temperature(hopeless).problem
    turned = comparisons_of(np.full(60, 2.0), [1, 0] * 30)  # prompts of one half are right, those of the other wrong
    worse = calibration.temperature(turned)
    assert worse.after > worse.before or "no best temperature" in worse.problem
    assert worse.problem


def preferences(lengths, gold):
    return [
        Preference(f"p{k}", tuple("x" * n for n in answer_lengths), tuple((float(s),) for s in scores))
        for k, (answer_lengths, scores) in enumerate(zip(lengths, gold, strict=True))
    ]


def test_length_bias_is_what_scipy_and_scikit_learn_say():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, size=(300, 4))
    gold = rng.normal(size=(300, 4))
    scores = gold + 0.02 * lengths
    rows, results = preferences(lengths, gold), scored(*scores)
    result = comparisons(rows, results)
    measured = length.length_bias(rows, results, result, relative=True)
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


def test_the_accuracy_at_equal_length_is_unknown_where_the_better_answer_is_always_longer():
    rows = preferences(np.full((20, 2), [30, 3]), np.full((20, 2), [1.0, 0.0]))
    results = scored(*np.full((20, 2), [1.0, 0.0]))
    measured = length.length_bias(rows, results, comparisons(rows, results), relative=True)
    assert measured.longer.value == 1
    assert measured.controlled.n == 0
    assert tables._length_rows(measured)[-1][1] == "unknown: the better answer of these rows is always longer"


def test_best_of_n_is_the_mean_over_all_draws():
    rng = np.random.default_rng(0)
    gold, scores = rng.normal(size=7), rng.normal(size=7)
    scores[2] = scores[5]
    for n in range(1, 8):
        draws = []
        for chosen in combinations(range(7), n):
            drawn = np.array(chosen)
            best = drawn[scores[drawn] == scores[drawn].max()]
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
    result = agreement.agreement(
        [*gold, [1, 1, 1], [1, 2]], [*scored(*scores, [1, 2, 3]), failed(preferences([[1, 2]], [[1, 2]])[0].group, "x")]
    )
    assert result.tau_b.n == result.ndcg.n == 20
    single = scores.astype(np.float32).astype(float)
    assert result.tau_b.value == pytest.approx(
        np.mean([kendalltau(g, s).statistic for g, s in zip(gold, single, strict=True)])
    )
    assert result.spearman.value == pytest.approx(
        np.mean([spearmanr(g, s).statistic for g, s in zip(gold, single, strict=True)])
    )
    expected = np.mean([ndcg_score([g - g.min()], [s]) for g, s in zip(gold, single, strict=True)])
    assert result.ndcg.value == pytest.approx(expected)


def test_ndcg_with_equal_scores_is_scikit_learns():
    gold, scores = np.array([3.0, 1, 2, 0, 1]), np.array([1.0, 1, 2, 0, 1])
    assert agreement.ndcg(gold, scores) == pytest.approx(ndcg_score([gold - gold.min()], [scores]))


def test_mcnemar_counts_who_alone_was_right():
    first = comparisons_of([1, 1, -1, 1, 0, 1], [1, 1, 1, 0, 1, 0.5])
    second = comparisons_of([1, -1, 1, -1, 1, -1], [1, 1, 1, 0, 1, 0.5])
    result = paired.paired(first, second)
    assert (result.first_only, result.second_only) == (1, 3)
    assert result.p_value == pytest.approx(binomtest(1, 4).pvalue)
    assert result.difference.value == pytest.approx((-1 + 1 + 1 + 0.5) / 5)
    assert result.difference.n == 5
    assert not result.worse
    assert paired.paired(first, comparisons_of([1], [1], [99])) is None


def test_a_model_that_lost_much_is_worse():
    rng = np.random.default_rng(0)
    good = comparisons_of(np.ones(500), np.ones(500))
    bad = comparisons_of(np.where(rng.random(500) < 0.2, -1, 1), np.ones(500))
    assert paired.paired(good, bad).worse
    assert not paired.paired(bad, good).worse
    same = paired.paired(good, good)
    assert (same.p_value, same.difference.value) == (1.0, 0.0)
