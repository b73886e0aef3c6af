import json
import math
from dataclasses import astuple, replace
from itertools import count

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, log_loss

import ranker
from ranker.evaluation import baselines, plots
from ranker.evaluation.evaluate import evaluate, order_effects
from ranker.evaluation.model_report import LabelSwap
from ranker.evaluation.report.tables import headline
from ranker.evaluation.report.writer import write_report
from ranker.evaluation.robustness import EditEffect
from ranker.metrics import Comparisons, accuracy, brier, comparisons, summarise, wilson
from ranker.metrics import log_loss as ours
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Preference
from ranker.scoring.protocol import GroupScores, failed
from tests.conftest import tiny
from tests.support.scorers import info_of

NUMBERS = count()


def pair(subset="", label=1.0):
    """A pair of a prompt of its own."""
    return Preference(f"p{next(NUMBERS)}", ("good answer", "bad"), ((1.0,), (0.0,)), label=label, subset=subset)


def scored(*values):
    return GroupScores(np.array(values, np.float32), np.zeros(len(values), np.bool_))


class Fixed:
    """A scorer that knows the answers, or prefers whatever comes first."""

    info = info_of()

    def __init__(self, score):
        self.rule = score

    def score(self, groups, *, preserve_order=False):
        return [scored(*(self.rule(i, c) for i, c in enumerate(g.candidates))) for g in groups]

    def compare(self, pairs):
        raise NotImplementedError


@pytest.mark.parametrize(("k", "n"), [(0, 10), (5, 10), (10, 10), (797, 1000)])
def test_wilson_is_scipys(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    share = wilson(k, n)
    assert (share.value, share.n) == (k / n, n)
    assert share.low == pytest.approx(expected.low, abs=1e-12)
    assert share.high == pytest.approx(expected.high, abs=1e-12)


def test_the_interval_knows_that_comparisons_of_a_group_hang_together():
    """Against a cluster bootstrap: whole groups resampled."""
    from ranker.metrics import clustered

    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(120), 10)
    credit = (rng.random(1200) < np.repeat(rng.beta(4, 1.5, 120), 10)).astype(float)
    share = clustered(credit, groups)
    sums = np.bincount(groups, weights=credit)
    draws = np.sort([sums[rng.integers(0, 120, 120)].sum() / 1200 for _ in range(4000)])
    assert share.low == pytest.approx(draws[100], abs=0.006)
    assert share.high == pytest.approx(draws[3900], abs=0.006)
    assert share.high - share.low > 1.2 * (wilson(credit.sum(), 1200).high - wilson(credit.sum(), 1200).low)
    assert clustered(np.ones(30), np.repeat(np.arange(3), 10)).low == wilson(3, 3).low


def test_ties_count_half_and_undecided_labels_not_at_all():
    rows = [pair(), pair(), pair(), pair(label=0.5)]
    compared = comparisons(rows, [scored(1, 0), scored(0, 0), scored(0, 1), scored(3, 0)])
    assert accuracy(compared) == wilson(1.5, 3)
    assert summarise(compared).ties == 1


def test_losses_are_sklearns():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=200), rng.integers(0, 2, 200).astype(float)
    same = np.zeros(200, np.intp)
    compared = Comparisons(logits, targets, same, np.zeros((200, 2), np.intp), same)
    probability = 1 / (1 + np.exp(-logits))
    assert ours(compared) == pytest.approx(log_loss(targets, probability))
    assert brier(compared) == pytest.approx(brier_score_loss(targets, probability))
    certain = Comparisons(np.array([1e4]), np.array([0.0]), same[:1], compared.indices[:1], same[:1])
    assert math.isfinite(ours(certain))


def test_failed_groups_are_counted_not_scored():
    rows = [pair(), pair()]
    results = [scored(1, 0), failed(rows[1].group, "NaN")]
    assert len(comparisons(rows, results).logits) == 1


def test_a_scorer_that_prefers_the_first_answer_flips_every_pair():
    rows = [pair() for _ in range(20)]
    scorer = Fixed(lambda i, _: -float(i))
    effects = order_effects(scorer, rows)
    assert effects.order_flips.value == 1.0
    assert effects.label_swap == LabelSwap(accuracy=1.0, expected=0.0, n=20)
    effects = order_effects(Fixed(lambda _, c: float(len(c))), rows)
    assert effects.order_flips.value == 0.0
    assert effects.label_swap == LabelSwap(accuracy=0.0, expected=0.0, n=20)


def test_an_order_free_layout_that_is_not_would_be_caught(monkeypatch):
    """The measurement reads candidates as given: a hub that sees everything shows flips."""
    from ranker.models.attention.blocks import row_mask

    rows = [Preference("p", (f"a{i} saw", f"hammer {i}", "pear"), ((2.0,), (1.0,), (0.0,))) for i in range(8)]
    scorer = TorchScorer(*tiny("shared_prompt"))
    assert order_effects(scorer, rows).order_flips.value == 0.0
    order = {"n": 0}

    def positional(ids):
        order["n"] += 1
        return row_mask(ids)

    monkeypatch.setattr(scorer.model, "readout", replace(scorer.model.readout, mask=positional))
    forward = scorer._forward
    scorer._forward = lambda arrays: forward(
        arrays | {"position_ids": np.arange(arrays["input_ids"].shape[1])[None] % 160 + 0 * arrays["position_ids"]}
    )
    forward_order, turned = (
        scorer.score([type(r.group)(r.prompt, r.candidates[::step]) for r in rows], preserve_order=True)
        for step in (1, -1)
    )
    assert order["n"] > 0
    assert max(np.abs(a.scores - b.scores[::-1]).max() for a, b in zip(forward_order, turned, strict=True)) > 1e-3


def test_the_published_layout_reports_its_own_flips():
    scorer = TorchScorer(*tiny("ordered_pair"))
    rows = [Preference("p", (f"a{i} saw", f"hammer {i}", "pear"), ((2.0,), (1.0,), (0.0,))) for i in range(8)]
    results = scorer.score([r.group for r in rows])
    directed = 0
    for row in rows:
        for i, j in ((0, 1), (0, 2), (1, 2)):
            group = type(row.group)(row.prompt, (row.candidates[i], row.candidates[j]))
            packed = scorer.pipeline.pack(scorer.pipeline.tokenize([group])[0])
            from ranker.scoring import batching

            with torch.inference_mode():
                out = scorer._forward(batching.collate(scorer.model.layout, batching.units([packed])))[..., 0]
            forward, backward = out[:, 0] - out[:, 1]
            directed += np.sign(forward) != -np.sign(backward)
    assert sum(r.order_flips for r in results) == directed
    assert order_effects(scorer, rows).order_flips.value == pytest.approx(directed / 24)


def test_a_report_holds_counts_and_intervals(tmp_path):
    rows = [pair(s) for s in ("x", "y")] * 10
    evaluation = evaluate(Fixed(lambda _, c: float(len(c))), rows, train=rows)
    report = evaluation.report
    assert report.accuracy.value == 1.0
    assert report.subsets["x"].n == 10
    assert set(report.baselines) == {"random", "longer_wins", "bag_of_words"}
    for share in (report.accuracy, report.order_flips, *(baseline.accuracy for baseline in report.baselines.values())):
        assert share.low <= share.value <= share.high
        assert share.n == 20
    assert any(name == "accuracy" and "n=20" in text for name, text in headline(report))
    write_report(report.to_dict(), tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text())["schema_version"] == 2


def test_the_json_of_a_report_has_the_keys_that_its_readers_know():
    rows = [pair() for _ in range(20)]
    report = evaluate(Fixed(lambda _, c: float(len(c))), rows, train=rows).report
    values = report.to_dict()
    assert [*values] == [
        "schema_version",
        "groups",
        "comparisons",
        "prompts",
        "accuracy",
        "ties",
        "log_loss",
        "brier",
        "mean_margin",
        "failed",
        "labelled_ties",
        "truncated",
        "prompts_truncated",
        "order_flips",
        "label_swap",
        "cyclic_triads",
        "calibration",
        "length_bias",
        "agreement",
        "aspects",
        "best_of_n",
        "subsets",
        "kinds",
        "baselines",
        "answers",
        "answers_read",
    ]
    assert values["accuracy"] == {"value": 1.0, "low": report.accuracy.low, "high": 1.0, "n": 20}
    assert [*values["calibration"]] == ["error", "bins", "temperature"]
    assert [*values["calibration"]["bins"][0]] == ["predicted", "observed", "n"]
    assert [*values["baselines"]["longer_wins"]] == ["value", "low", "high", "n"]
    assert [*values["baselines"]["bag_of_words"]] == ["value", "low", "high", "n", "log_loss"]
    assert values["agreement"] is None
    effect = EditEffect("worse", report.accuracy, report.mean_margin)
    assert replace(report, robustness={"empty": effect}).to_dict()["robustness"]["empty"]["kind"] == "worse"


def test_kinds_of_pairs_are_named_better_first():
    row = Preference("p", ("a", "bb"), ((0.2,), (0.9,)), kinds=("wrong", "right"))
    report = evaluate(Fixed(lambda _, c: float(len(c))), [row] * 4).report
    (kind,) = report.kinds
    assert kind == "right > wrong"
    assert astuple(report.kinds[kind]) == pytest.approx(astuple(report.accuracy), nan_ok=True)


def test_bag_of_words_learns_words_and_longer_wins_counts_characters():
    train = [Preference("p", (f"fine {i}", f"poor {i}"), ((1.0,), (0.0,)), label=1.0) for i in range(40)]
    assert accuracy(baselines.bag_of_words(train, train[:10])).value == 1.0
    rows = [
        Preference("p", ("long text", "s"), ((1.0,), (0.0,))),
        Preference("p", ("s", "long text"), ((1.0,), (0.0,))),
    ]
    assert accuracy(baselines.longer_wins(rows)).value == 0.5
    assert 0.3 < accuracy(baselines.random_scores(train * 5)).value < 0.7


def test_a_baseline_that_cannot_be_fitted_says_why_and_ends_nothing():
    rows = [Preference("p", ("\u4f60", "\u597d"), ((1.0,), (0.0,)), label=1.0) for _ in range(5)]
    words = evaluate(Fixed(lambda _, c: 1.0), rows, train=rows).report.baselines["bag_of_words"]
    assert words.reason
    assert words.accuracy.n == 0
    assert words.to_dict()["reason"] == words.reason


def test_the_edits_of_an_evaluation_spell_special_tokens_without_a_warning(model, caplog):
    scorer = ranker.load(model)
    ranker.evaluate(scorer, [{"prompt": f"p{k}", "chosen": "yes it is", "rejected": "no"} for k in range(4)])
    assert "spell a special token" not in caplog.text
    scorer.score("p", ["yes [SEP] it is", "no"])
    assert "spell a special token" in caplog.text, "a user's own text is still named"


def test_plots_are_written(tmp_path):
    history = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.6, "accuracy": 0.6}, {"step": 2, "eval_accuracy": 0.6}]
    history[-1] |= {"eval_accuracy_low": 0.4, "eval_accuracy_high": 0.7}
    plots.learning_curve(history, tmp_path / "learning.png")
    assert (tmp_path / "learning.png").read_bytes().startswith(b"\x89PNG")
