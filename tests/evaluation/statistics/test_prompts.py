"""Rows with the same prompt are not independent, wherever they stand in a file: intervals know it."""

import numpy as np
import pytest

from ranker.evaluation.evaluate import evaluate
from ranker.evaluation.statistics.bootstrap import clustered_mean
from ranker.evaluation.statistics.calibration import temperature
from ranker.evaluation.statistics.paired import paired
from ranker.metrics import accuracy, comparisons, prompt_numbers, wilson
from ranker.records import Message, Preference
from ranker.scoring.protocol import GroupScores
from tests.support.scorers import info_of

ROWS = 8
"""Of every prompt."""


class Fixed:
    info = info_of()

    def __init__(self, rule):
        self.rule = rule

    def score(self, groups, *, preserve_order=False):
        return [
            GroupScores(np.array([self.rule(c) for c in g.candidates], np.float32), np.zeros(len(g.candidates), bool))
            for g in groups
        ]

    def compare(self, pairs):
        return np.array([r.scores[0] - r.scores[1] for r in self.score(pairs)])


def pairs_of_a_file(seed, prompts=60):
    """Pairs whose prompts repeat and differ in difficulty; the truth is the mean over all prompts, 0.75."""
    rng = np.random.default_rng(seed)
    chances = np.repeat(rng.beta(1.5, 0.5, prompts), ROWS)
    right = rng.random(len(chances)) < chances
    rows = [Preference(f"prompt {k // ROWS}", ("a", "b"), ((1.0,), (0.0,)), label=1.0) for k in range(len(chances))]
    order = rng.permutation(len(rows))
    scores = [np.array([1.0, 0.0] if right[k] else [0.0, 1.0], np.float32) for k in order]
    return [rows[k] for k in order], [GroupScores(s, np.zeros(2, np.bool_)) for s in scores]


def test_intervals_of_pair_files_whose_prompts_repeat_hold_the_truth():
    inside, plain, means = [], [], []
    for seed in range(400):
        compared = comparisons(*pairs_of_a_file(seed))
        share = accuracy(compared)
        assert share.n == 60 * ROWS
        inside.append(share.low <= 0.75 <= share.high)
        independent = wilson(share.value * share.n, share.n)
        plain.append(independent.low <= 0.75 <= independent.high)
        if seed < 150:
            mean = clustered_mean((compared.logits > 0).astype(float), compared.prompts, seed)
            means.append(mean.low <= 0.75 <= mean.high)
    assert 0.90 <= np.mean(inside) <= 0.98
    assert 0.90 <= np.mean(means) <= 0.98
    assert np.mean(plain) < 0.85, "rows that are taken as independent promise too much"


def test_a_prompt_is_known_by_its_text_in_whatever_form():
    rows = [
        Preference("p", ("a", "b"), ((1.0,), (0.0,))),
        Preference((Message("user", "p"),), ("c", "d"), ((1.0,), (0.0,))),
        Preference("q", ("a", "b"), ((1.0,), (0.0,))),
    ]
    assert prompt_numbers(rows).tolist() == [0, 0, 1]
    empty = [Preference("", ("a", "b"), ((1.0,), (0.0,)))] * 3
    assert len(set(prompt_numbers(empty).tolist())) == 3, "nothing says that they belong together"


def test_one_prompt_has_no_interval_and_is_no_regression():
    rows = [Preference("p", ("a", "b"), ((1.0,), (0.0,)), label=1.0) for _ in range(40)]
    good = [GroupScores(np.array([1.0, 0.0], np.float32), np.zeros(2, np.bool_))] * 40
    bad = [*good[:39], GroupScores(np.array([0.0, 1.0], np.float32), np.zeros(2, np.bool_))]
    share = accuracy(comparisons(rows, bad))
    assert share.value == pytest.approx(39 / 40)
    assert np.isnan([share.low, share.high]).all()
    difference = paired(comparisons(rows, good), comparisons(rows, bad))
    assert np.isnan(difference.difference.low)
    assert not difference.worse


def test_paired_differences_and_both_halves_of_the_temperature_keep_prompts_together():
    rows, one = pairs_of_a_file(0)
    _, other = pairs_of_a_file(1)
    difference = paired(comparisons(rows, one), comparisons(rows, other)).difference
    apart = [Preference(f"row {k}", p.candidates, p.scores, label=p.label) for k, p in enumerate(rows)]
    independent = paired(comparisons(apart, one), comparisons(apart, other)).difference
    assert difference.value == independent.value
    assert difference.high - difference.low > 1.1 * (independent.high - independent.low)
    with pytest.raises(ValueError, match="at least two prompts"):
        temperature(comparisons([rows[0]] * 9, [one[0]] * 9))


def test_a_report_says_how_many_prompts_there_were_and_correlates_within_them():
    answers = ["a", "bb", "ccc", "dddd"]
    rows = [
        Preference("p", (answers[j], answers[i]), ((1.0,), (0.0,)), label=1.0)
        for i in range(4)
        for j in range(i + 1, 4)
    ]
    scores = {"a": 0.0, "bb": 2.0, "ccc": 1.0, "dddd": 3.0}
    report = evaluate(Fixed(scores.__getitem__), rows).report
    assert (report.comparisons, report.prompts, report.groups) == (6, 1, 6)
    assert report.length_bias.correlation.value == pytest.approx(0.8), "over the four answers of the prompt"
    assert report.length_bias.correlation.n == 1
