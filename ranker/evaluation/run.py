"""One evaluation: a scorer on labelled groups, beside its baselines, as a plain report."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ranker.evaluation import baselines
from ranker.metrics import Comparisons, Share, accuracy, comparisons, log_loss, summarise, wilson
from ranker.records import Preference
from ranker.scorer import GroupScores, Scorer

SCHEMA_VERSION = 1
FLIP_GROUPS = 200
"""Groups that are scored a second time, in reverse order."""
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report and the comparisons it was made from."""

    report: Report
    found: Comparisons


def evaluate(scorer: Scorer, test: Sequence[Preference], *, train: Sequence[Preference] = ()) -> Evaluation:
    """Score ``test`` and report every number with its n and 95 % interval.

    The report holds pairwise accuracy, ties, log-loss, Brier score, order flips (the first ``FLIP_GROUPS`` groups
    scored in both orders), accuracy per subset and per pair of candidate kinds, a label-swap check (the accuracy under
    swapped labels must be one minus the accuracy), and the baselines random, longer-wins and, given ``train``,
    bag-of-words.
    """
    results = scorer.score([p.group for p in test])
    found = comparisons(test, results)
    summary = summarise(found, failed=sum(r.error is not None for r in results))
    swapped = accuracy(replace(found, targets=1 - found.targets))
    report: Report = {
        "schema_version": SCHEMA_VERSION,
        "groups": len(test),
        **asdict(summary),
        "truncated": sum(int(r.truncated.sum()) for r in results),
        "prompts_truncated": sum(r.prompt_truncated for r in results),
        "order_flips": asdict(order_flips(scorer, test[:FLIP_GROUPS], results[:FLIP_GROUPS])),
        "label_swap": {"accuracy": swapped.value, "expected": 1 - summary.accuracy.value, "n": swapped.n},
        "subsets": _by(found, lambda k, _i, _j: test[k].subset),
        "kinds": _by(found, lambda k, i, j: _kinds(test[k], i, j)),
        "baselines": {
            "random": asdict(accuracy(baselines.random_scores(test))),
            "longer_wins": asdict(accuracy(baselines.longer_wins(test))),
        },
    }
    if train:
        words = baselines.bag_of_words(train, test)
        report["baselines"]["bag_of_words"] = asdict(accuracy(words)) | {"log_loss": log_loss(words)}
    return Evaluation(report, found)


def order_flips(scorer: Scorer, groups: Sequence[Preference], results: Sequence[GroupScores]) -> Share:
    """Share of pairs whose winner changes with the order of the candidates.

    Every group is scored again with its candidates reversed; for a model that reads ordered pairs, the pairs whose two
    orders disagree (``GroupScores.order_flips``) are counted.
    """
    reversed_groups = [replace(p.group, candidates=p.candidates[::-1]) for p in groups]
    flips = pairs = 0
    for first, second in zip(results, scorer.score(reversed_groups), strict=True):
        if first.error is not None or second.error is not None:
            continue
        rows, columns = np.triu_indices(len(first.scores), 1)
        again = second.scores[::-1]
        before = np.sign(first.scores[rows] - first.scores[columns])
        after = np.sign(again[rows] - again[columns])
        flips += max(int((before != after).sum()), first.order_flips)
        pairs += len(rows)
    return wilson(flips, pairs)


def write_report(report: Report, path: Path) -> None:
    """Write the report as JSON; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_finite(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


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
        ("labels swapped", f"{report['label_swap']['accuracy']:.3f}"),
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


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
