"""The suites' rules on handmade numbers, each worked out on paper or by a plain loop."""

import math

import numpy as np
import pytest

from ranker.evaluation.suites import rules
from ranker.evaluation.suites.rules import TiesRow


def test_rewardbench_sections_are_weighted_by_their_counts():
    accuracies = {subset: 0.5 for section in rules.SECTIONS.values() for subset in section}
    assert rules.rewardbench(accuracies) == {
        "Chat": 0.5,
        "Chat Hard": 0.5,
        "Safety": 0.5,
        "Reasoning": 0.5,
        "average": 0.5,
    }
    figures = rules.rewardbench(accuracies | {"math-prm": 1.0, "hep-cpp": 0.0, "alpacaeval-easy": 1.0})
    assert figures["Reasoning"] == pytest.approx((984 + 0.5 * 820) / (984 + 984))
    assert figures["Chat"] == pytest.approx((100 + 0.5 * 258) / 358)
    assert figures["average"] == pytest.approx((figures["Chat"] + 0.5 + 0.5 + figures["Reasoning"]) / 4)


def test_code_counts_as_much_as_mathematics():
    reasoning = rules.SECTIONS["Reasoning"]
    assert sum(count for subset, count in reasoning.items() if subset.startswith("hep")) == reasoning["math-prm"]
    assert sum(sum(section.values()) for name, section in rules.SECTIONS.items() if name != "Reasoning") == 1554


def test_prior_sets_count_half_a_section():
    accuracies = {subset: 1.0 for section in rules.SECTIONS.values() for subset in section}
    figures = rules.rewardbench(accuracies | {"shp": 0.5, "summarize": 0.7})
    assert figures["Prior Sets"] == pytest.approx(0.6)
    assert figures["average"] == pytest.approx((4 + 0.5 * 0.6) / 4.5)


def test_what_is_unknown_or_missing_is_said():
    with pytest.raises(ValueError, match="unknown subset 'alpaca'"):
        rules.rewardbench({"alpaca": 1.0})
    with pytest.raises(ValueError, match="no row of section 'Chat Hard'"):
        rules.rewardbench({"alpacaeval-easy": 1.0})


@pytest.mark.parametrize(
    ("scores", "credit"), [((3, 1, 2, 0), 1), ((1, 3, 2, 0), 0), ((3, 3, 2, 0), 1 / 2), ((1, 1, 1, 1), 1 / 4)]
)
def test_a_tie_at_the_top_is_shared(scores, credit):
    assert rules.best_of_four(scores) == credit


def test_the_ties_formula_on_paper():
    rows = [
        TiesRow.read("ref:0", [5.0, 1.0, 0.0], 1),  # gap 4
        TiesRow.read("tied:0", [4.0, 3.0, 1.0], 2),  # gap 2, spread 1
        TiesRow.read("ref:1", [1.0, 2.0], 1),  # gap -1
        TiesRow.read("tied:1", [9.0, 3.0, 1.0], 2),  # gap 2, spread 6
        TiesRow.read("tied:7", [1.0, 0.0], 1),  # no ref row: counts for tied accuracy alone
    ]
    figures = rules.ties(rows)
    assert figures["ref_accuracy"] == 1 / 2
    assert figures["tied_accuracy"] == 1
    assert (figures["preferred"], figures["preferred_hard"]) == (1 / 2, 1 / 2)
    margin = (math.tanh(2 / 1 - 1) + math.tanh(-1 / 6 - 1)) / 2
    assert figures["margin"] == pytest.approx(margin)
    assert figures["score"] == pytest.approx(0.3 * 1 / 2 + 0.3 + 0.2 / 2 + 0.2 / 2 + 0.01 * margin)


def test_right_answers_with_the_same_score_divide_by_zero_as_upstream():
    rows = [TiesRow.read("ref:0", [1.0, 0.0], 1), TiesRow.read("tied:0", [2.0, 2.0, 0.0], 2)]
    assert rules.ties(rows)["score"] == pytest.approx(1.01)
    rows = [TiesRow.read("ref:0", [1.0, 1.0], 1), TiesRow.read("tied:0", [2.0, 2.0, 2.0], 2)]
    assert rules.ties(rows) == {
        "ref_accuracy": 0,
        "tied_accuracy": 0,
        "preferred": 0,
        "preferred_hard": 0,
        "margin": 0,
        "score": 0,
    }


def test_rows_of_ties_that_cannot_be_read():
    with pytest.raises(ValueError, match="an id like ref:12"):
        TiesRow.read("12", [1.0, 0.0], 1)
    with pytest.raises(ValueError, match="2 of 2 right"):
        TiesRow.read("tied:1", [1.0, 0.0], 2)
    with pytest.raises(ValueError, match="of the same N"):
        rules.ties([TiesRow.read("ref:0", [1.0, 0.0], 1), TiesRow.read("tied:1", [1.0, 0.0], 1)])


def test_rm_bench_reads_its_matrix_by_style():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    rejected[:, 2] += 3  # Markdown is liked
    wins = np.array([[np.mean(chosen[:, i] > rejected[:, j]) for j in range(3)] for i in range(3)])
    figures = rules.rm_bench(chosen, rejected)
    assert figures["hard"] == pytest.approx((wins[0, 1] + wins[0, 2] + wins[1, 2]) / 3)
    assert figures["normal"] == pytest.approx((wins[0, 0] + wins[1, 1] + wins[2, 2]) / 3)
    assert figures["easy"] == pytest.approx((wins[1, 0] + wins[2, 0] + wins[2, 1]) / 3)
    assert figures["average"] == pytest.approx(wins.mean())
    assert figures["hard"] < figures["easy"]


def test_two_orders_must_together_side_with_the_label():
    logits = np.array([1.0, 1.0, -1.0, 0.0, 1.0])
    swapped = np.array([1.0, -1.0, -1.0, 1.0, 1.0])
    label = np.array([1, 1, -1, 1, -1])
    np.testing.assert_array_equal(rules.two_orders(logits, swapped, label), [1, 0, 1, 1, 0])
