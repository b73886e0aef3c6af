"""One evaluation: a scorer on labelled groups, beside its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from ranker.errors import DataError
from ranker.evaluation import baselines
from ranker.evaluation.model_report import Baseline, CalibrationBin, CalibrationReport, LabelSwap, ModelReport
from ranker.evaluation.statistics.agreement import Agreement, agreement
from ranker.evaluation.statistics.best_of_n import BestOfN, best_of_n
from ranker.evaluation.statistics.bootstrap import clustered_mean
from ranker.evaluation.statistics.calibration import reliability, temperature
from ranker.evaluation.statistics.length import length_bias
from ranker.evaluation.statistics.regression import regression
from ranker.metrics import (
    Comparisons,
    Share,
    accuracy,
    briers,
    clustered,
    comparisons,
    leads,
    log_loss,
    log_losses,
    prompt_numbers,
    wilson,
)
from ranker.progress import scoring
from ranker.ranking.tournament import play
from ranker.records import Preference
from ranker.scoring.distinct import count_reads
from ranker.scoring.protocol import Calibration, GroupScores, Scorer

ORDER_GROUPS = 100
"""Groups that are scored in both orders."""
SWAP_GROUPS = 50
"""Those of ``ORDER_GROUPS`` whose first two candidates are scored in both orders for the label-swap check."""
CYCLE_GROUPS = 30
"""Groups of three or more candidates whose pairs are all compared."""
SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of candidates for best-of-n."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report, and the rows, scores and comparisons that it summarises."""

    report: ModelReport
    preferences: Sequence[Preference]
    results: Sequence[GroupScores]
    comparisons: Comparisons


def evaluate(scorer: Scorer, test: Sequence[Preference], *, train: Sequence[Preference] = ()) -> Evaluation:
    """Score ``test`` and report estimates with their n and 95 % intervals.

    The report holds pairwise accuracy, ties, log-loss, Brier score, order flips (the first ``ORDER_GROUPS`` groups in
    both orders), the label-swap check (the first ``SWAP_GROUPS``), cyclic triples (``CYCLE_GROUPS``), calibration,
    length bias, accuracy per subset and per pair of candidate kinds, and the baselines random, longer-wins and, given
    ``train``, bag-of-words (with the reason where it cannot be fitted). For lists it also holds rank agreement, overall
    and per aspect, and best-of-n. Intervals are over prompts: rows with the same prompt are drawn together.
    """
    with count_reads() as count, scoring("evaluating", len(test)):
        results = scorer.score([p.group for p in test])
    compared = comparisons(test, results)
    decided = compared.where(compared.targets != 0.5)
    in_either_order = None if scorer.info.scores_are_relative else results[:ORDER_GROUPS]
    with scoring("both orders", 2 * min(ORDER_GROUPS, len(test))):
        effects = order_effects(scorer, test[:ORDER_GROUPS], in_either_order)
    lists = _list_figures(test, results)
    report = ModelReport(
        groups=len(test),
        answers=count.asked,
        answers_read=count.read,
        comparisons=len(compared.logits),
        prompts=len(set(compared.prompts.tolist())),
        accuracy=accuracy(compared),
        ties=int((decided.logits == 0).sum()),
        log_loss=clustered_mean(log_losses(compared), compared.prompts),
        brier=clustered_mean(briers(compared), compared.prompts),
        mean_margin=clustered_mean(leads(decided), decided.prompts),
        failed=sum(r.error is not None for r in results),
        labelled_ties=len(compared.logits) - len(decided.logits),
        truncated=sum(int(r.truncated.sum()) for r in results),
        prompts_truncated=sum(r.prompt_truncated for r in results),
        order_flips=effects.order_flips,
        label_swap=effects.label_swap,
        cyclic_triads=_cyclic_triads(scorer, test),
        calibration=_calibration(compared),
        length_bias=length_bias(test, results, compared, relative=scorer.info.scores_are_relative),
        agreement=lists.agreement,
        aspects=lists.aspects,
        best_of_n=lists.best_of_n,
        subsets=_by(compared, [test[k].subset for k in compared.groups]),
        kinds=_by(compared, _kinds(test, compared)),
        baselines=_baselines(train, test),
        regression=None if len(compared.logits) or scorer.info.scores_are_relative else regression(test, results),
    )
    return Evaluation(report, test, results, compared)


@dataclass(frozen=True, slots=True)
class OrderEffects:
    """What the order of the candidates changes.

    Attributes:
        order_flips: share of pairs whose winner changes with the order; for a model that reads ordered pairs, the pairs
            whose two orders disagree.
        label_swap: the reversed groups under unchanged labels.
    """

    order_flips: Share
    label_swap: LabelSwap


def order_effects(
    scorer: Scorer, test: Sequence[Preference], in_either_order: Sequence[GroupScores] | None = None
) -> OrderEffects:
    """Score every group in both orders and compare the winners.

    Args:
        scorer: the model.
        test: the groups.
        in_either_order: the scores in either order, of a model that reads one answer at a time; nothing is scored then.
    """
    if in_either_order is not None:
        first, second = list(in_either_order), list(map(_reversed, in_either_order))
    else:
        first, second = (
            scorer.score([replace(p.group, candidates=p.candidates[::step]) for p in test], preserve_order=True)
            for step in (1, -1)
        )
    flips: list[float] = []
    groups: list[int] = []
    prompts = prompt_numbers(test)
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if a.error is not None or b.error is not None:
            continue
        rows, columns = np.triu_indices(len(a.scores), 1)
        again = b.scores[::-1]
        before, after = (np.sign(s[rows] - s[columns]) for s in (a.scores, again))
        flipped = max(int((before != after).sum()), a.order_flips)
        flips += [1.0] * flipped + [0.0] * (len(rows) - flipped)
        groups += [number] * len(rows)
    pairs_only = [replace(p, candidates=p.candidates[:2], scores=p.scores[:2]) for p in test[:SWAP_GROUPS]]
    straight, swapped = first[:SWAP_GROUPS], second[:SWAP_GROUPS]
    if in_either_order is not None:
        straight = [_first_two(result) for result in straight]
        swapped = list(map(_reversed, straight))
    elif any(len(p.candidates) > 2 for p in test[:SWAP_GROUPS]):
        straight = scorer.score([p.group for p in pairs_only], preserve_order=True)
        swapped = scorer.score(
            [replace(p.group, candidates=p.candidates[::-1]) for p in pairs_only], preserve_order=True
        )
    share = accuracy(comparisons(pairs_only, swapped))
    expected = 1 - accuracy(comparisons(pairs_only, straight)).value
    order_flips = clustered(np.array(flips), prompts[np.array(groups, np.intp)])
    return OrderEffects(order_flips, LabelSwap(share.value, expected, share.n))


def _reversed(result: GroupScores) -> GroupScores:
    return replace(result, scores=result.scores[::-1], truncated=result.truncated[::-1])


def _first_two(result: GroupScores) -> GroupScores:
    return replace(result, scores=result.scores[:2], truncated=result.truncated[:2])


def _cyclic_triads(scorer: Scorer, test: Sequence[Preference]) -> Share:
    rows = [p for p in test if len(p.candidates) > 2][:CYCLE_GROUPS]
    with scoring("all pairs of answers", len(rows)):
        tournaments = play(scorer, [p.group for p in rows], schedule="all")
    played = zip(prompt_numbers(rows).tolist(), tournaments, strict=True)
    counted = [(prompt, *tournament.cycles) for prompt, tournament in played if tournament.error is None]
    cyclic = [1.0 if k < cycles else 0.0 for _, cycles, triads in counted for k in range(triads)]
    prompts = [prompt for prompt, _, triads in counted for _ in range(triads)]
    return clustered(np.array(cyclic), np.array(prompts, np.intp))


def _calibration(compared: Comparisons) -> CalibrationReport:
    curve = reliability(compared)
    columns = (curve.predicted.tolist(), curve.observed.tolist(), curve.counts.tolist())
    bins = tuple(CalibrationBin(*values) for values in zip(*columns, strict=True))
    fitted = None
    with suppress(ValueError):  # one prompt cannot be halved
        fitted = temperature(compared)
    return CalibrationReport(curve.error, bins, fitted)


def calibration(scorer: Scorer, evaluation: Evaluation, data: str) -> Calibration:
    """The calibration to store with a model: the report's temperature, and mean and deviation of the scores.

    Raises:
        DataError: the comparisons are all of one prompt, which cannot be halved, or there are no scores; or there is no
            best temperature, or it makes the log-loss of the other half worse.
    """
    fitted = evaluation.report.calibration.temperature
    scores = [r.scores.astype(np.float64) for r in evaluation.results if r.error is None and len(r.scores)]
    if fitted is None or not scores:
        raise DataError(data, "rows", "expected comparisons of at least two prompts to calibrate on")
    if fitted.problem:
        reason = f"no temperature can be stored: {fitted.problem}; nothing was written. Calibrate on more rows"
        raise DataError(data, "rows", reason)
    if scorer.info.scores_are_relative:
        scores = [row_scores - row_scores.mean() for row_scores in scores]
    values = np.concatenate(scores)
    deviation = float(values.std()) or 1.0
    return Calibration(fitted.value, float(values.mean()), deviation, len(evaluation.comparisons.logits), data)


@dataclass(frozen=True, slots=True)
class _ListFigures:
    """Rank agreement and best-of-n over rows with three or more candidates."""

    agreement: Agreement | None = None
    aspects: Mapping[str, Agreement] = field(default_factory=dict)
    best_of_n: tuple[BestOfN, ...] = ()


def _list_figures(test: Sequence[Preference], results: Sequence[GroupScores]) -> _ListFigures:
    """Agreement and best-of-n are by the mean of the tasks, ``aspects`` by each task."""
    rows = [(p, r) for p, r in zip(test, results, strict=True) if len(p.candidates) > 2]
    if not rows:
        return _ListFigures()
    scored = [r for _, r in rows]
    prompts = prompt_numbers([p for p, _ in rows])
    gold = [np.array(p.scores).mean(axis=1).tolist() for p, _ in rows]
    tasks = sorted({task for p, _ in rows for task in p.tasks})
    most = max(len(p.candidates) for p, _ in rows)
    points = best_of_n(gold, scored, [n for n in SIZES if n <= most], prompts)
    return _ListFigures(
        agreement(gold, scored, prompts),
        {task: agreement([_labels(p, task) for p, _ in rows], scored, prompts) for task in tasks},
        tuple(point for point in points if point.chosen.n),
    )


def _labels(preference: Preference, task: str) -> list[float]:
    if task not in preference.tasks:
        return [float("nan")] * len(preference.candidates)
    column = preference.tasks.index(task)
    return [scores[column] for scores in preference.scores]


def _baselines(train: Sequence[Preference], test: Sequence[Preference]) -> dict[str, Baseline]:
    figures = {
        "random": Baseline(accuracy(baselines.random_scores(test))),
        "longer_wins": Baseline(accuracy(baselines.longer_wins(test))),
    }
    if train:
        figures["bag_of_words"] = _bag_of_words(train, test)
    return figures


def _bag_of_words(train: Sequence[Preference], test: Sequence[Preference]) -> Baseline:
    try:
        words = baselines.bag_of_words(train, test)
    except ValueError as error:  # scikit-learn: no term occurs often enough, or only one class is labelled
        return Baseline(wilson(0, 0), reason=str(error))
    return Baseline(accuracy(words), log_loss(words))


def _by(compared: Comparisons, names: Sequence[str]) -> dict[str, Share]:
    """Accuracy by the name of each comparison; comparisons without a name are left out."""
    each = np.array(names, object)
    return {name: accuracy(compared.where(each == name)) for name in sorted(set(names) - {""})}


def _kinds(test: Sequence[Preference], compared: Comparisons) -> list[str]:
    """The kinds of each comparison's candidates, the better one first; empty for ties and rows without kinds."""
    names = []
    for k, (i, j), target in zip(compared.groups, compared.indices, compared.targets, strict=True):
        kinds, (better, other) = test[k].kinds, (i, j) if target > 0.5 else (j, i)
        names.append(f"{kinds[better]} > {kinds[other]}" if kinds and target != 0.5 else "")
    return names
