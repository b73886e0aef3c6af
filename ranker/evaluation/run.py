"""One evaluation: a scorer on labelled groups, beside its baselines, as a plain report."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ranker.data.files import finite
from ranker.evaluation import baselines
from ranker.metrics import Comparisons, Share, accuracy, comparisons, log_loss, summarise, wilson
from ranker.records import Preference
from ranker.scorer import Scorer

SCHEMA_VERSION = 1
ORDER_GROUPS = 200
"""Groups that are scored again in both orders."""
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report and the comparisons it was made from."""

    report: Report
    found: Comparisons


def evaluate(scorer: Scorer, test: Sequence[Preference], *, train: Sequence[Preference] = ()) -> Evaluation:
    """Score ``test`` and report every number with its n and 95 % interval.

    The report holds pairwise accuracy, ties, log-loss, Brier score, order flips and the label-swap check (the first
    ``ORDER_GROUPS`` groups, both orders), accuracy per subset and per pair of candidate kinds, and the baselines
    random, longer-wins and, given ``train``, bag-of-words (with the reason where it cannot be fitted).
    """
    results = scorer.score([p.group for p in test])
    found = comparisons(test, results)
    summary = summarise(found, failed=sum(r.error is not None for r in results))
    labels = found.targets
    report: Report = {
        "schema_version": SCHEMA_VERSION,
        "groups": len(test),
        **asdict(summary),
        "labelled_ties": int((labels == 0.5).sum()),
        "truncated": sum(int(r.truncated.sum()) for r in results),
        "prompts_truncated": sum(r.prompt_truncated for r in results),
        **order_effects(scorer, test[:ORDER_GROUPS]),
        "subsets": _by(found, lambda k, _i, _j: test[k].subset),
        "kinds": _by(found, lambda k, i, j: _kinds(test[k], i, j)),
        "baselines": {
            "random": asdict(accuracy(baselines.random_scores(test))),
            "longer_wins": asdict(accuracy(baselines.longer_wins(test))),
        },
    }
    if train:
        report["baselines"]["bag_of_words"] = _bag_of_words(train, test)
    return Evaluation(report, found)


def order_effects(scorer: Scorer, test: Sequence[Preference]) -> Report:
    """Both orders of every group through the model as given: flips, and a check that labels do not leak by position.

    ``order_flips`` is the share of pairs whose winner changes with the order; for a model that reads ordered pairs it
    counts the pairs whose two orders disagree. ``label_swap`` scores the groups reversed under labels that stay where
    they were: a model that looks at answers, not places, is then right exactly where it was wrong.
    """
    first = scorer.score([p.group for p in test], as_given=True)
    second = scorer.score([replace(p.group, candidates=p.candidates[::-1]) for p in test], as_given=True)
    flips = pairs = 0
    for a, b in zip(first, second, strict=True):
        if a.error is not None or b.error is not None:
            continue
        rows, columns = np.triu_indices(len(a.scores), 1)
        again = b.scores[::-1]
        before, after = (np.sign(s[rows] - s[columns]) for s in (a.scores, again))
        flips += max(int((before != after).sum()), a.order_flips)
        pairs += len(rows)
    pairs_only = [replace(p, candidates=p.candidates[:2], scores=p.scores[:2]) for p in test]
    straight = scorer.score([p.group for p in pairs_only], as_given=True)
    swapped = scorer.score([replace(p.group, candidates=p.candidates[::-1]) for p in pairs_only], as_given=True)
    share = accuracy(comparisons(pairs_only, swapped))
    expected = 1 - accuracy(comparisons(pairs_only, straight)).value
    swap = {"accuracy": share.value, "expected": expected, "n": share.n}
    return {"order_flips": asdict(wilson(flips, pairs)), "label_swap": swap}


def _bag_of_words(train: Sequence[Preference], test: Sequence[Preference]) -> Report:
    try:
        words = baselines.bag_of_words(train, test)
    except ValueError as error:  # scikit-learn: no term occurs often enough, or only one class is labelled
        return asdict(wilson(0, 0)) | {"reason": str(error)}
    return asdict(accuracy(words)) | {"log_loss": log_loss(words)}


def write_report(report: Report, path: Path) -> None:
    """Write the report as JSON; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finite(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def table(report: Report) -> list[tuple[str, str]]:
    """The report's main numbers as (name, text) rows."""
    rows = [
        ("accuracy", str(Share(**report["accuracy"]))),
        *((f"  {name.replace('_', ' ')}", str(_share(b))) for name, b in report["baselines"].items()),
        ("ties predicted", str(report["ties"])),
        ("order flips", str(Share(**report["order_flips"]))),
        ("log-loss (nats)", f"{report['log_loss']:.3f}"),
        ("Brier score", f"{report['brier']:.3f}"),
        ("mean margin (logits)", f"{report['mean_margin']:.3f}"),
        ("labels tied", str(report["labelled_ties"])),
        ("labels swapped", f"{report['label_swap']['accuracy']:.3f} (expected {report['label_swap']['expected']:.3f})"),
    ]
    for name in ("subsets", "kinds"):
        if len(report[name]) > 1:
            rows += [(f"{name[:-1]}: {key}", str(Share(**value))) for key, value in report[name].items()]
    return rows


def _by(found: Comparisons, key: Callable[[int, int, int], Hashable]) -> dict[str, Any]:
    members: dict[str, list[int]] = defaultdict(list)
    for row, (group, (i, j)) in enumerate(zip(found.groups.tolist(), found.indices.tolist(), strict=True)):
        name = str(key(group, i, j))
        if name:
            members[name].append(row)
    shares = {}
    for name in sorted(members):
        keep = np.zeros(len(found.logits), np.bool_)
        keep[members[name]] = True
        shares[name] = asdict(accuracy(found.where(keep)))
    return shares


def _kinds(preference: Preference, i: int, j: int) -> str:
    if not preference.kinds:
        return ""
    better = preference.scores[i][0] > preference.scores[j][0]
    first, second = (i, j) if better else (j, i)
    return f"{preference.kinds[first]} > {preference.kinds[second]}"


def _share(values: dict[str, Any]) -> Share:
    return Share(*(values[name] for name in ("value", "low", "high", "n")))
