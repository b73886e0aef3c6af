"""Is one model better than another on the same comparisons?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.evaluation.statistics.bootstrap import clustered_mean
from ranker.extras import require
from ranker.metrics import Comparisons, Estimate


@dataclass(frozen=True, slots=True)
class Paired:
    """Accuracy of the second minus that of the first, with an interval over prompts, and McNemar's p.

    ``first_only`` counts the comparisons in which only the first model was right, ``second_only`` those in which only
    the second was.

    The exact test (McNemar 1947, binomial) takes comparisons as independent; the interval does not.
    """

    difference: Estimate
    first_only: int
    second_only: int
    p_value: float

    @property
    def worse(self) -> bool:
        """Whether the second is significantly worse: the interval of the difference lies below zero."""
        return self.difference.high < 0


def paired(first: Comparisons, second: Comparisons) -> Paired | None:
    """Compare two models on the decided comparisons that both have; None without any, as where one failed on all."""
    keys = [_keys(found) for found in (first, second)]
    shared = sorted(keys[0].keys() & keys[1].keys())
    if not shared:
        return None
    credits = [
        np.array([_credit(found, known[key]) for key in shared])
        for found, known in zip((first, second), keys, strict=True)
    ]
    difference = credits[1] - credits[0]
    prompts = np.array([first.prompts[keys[0][key]] for key in shared], np.intp)
    one, other = int((difference < 0).sum()), int((difference > 0).sum())
    p_value = float(require("scipy.stats").binomtest(one, one + other).pvalue) if one + other else 1.0
    return Paired(clustered_mean(difference, prompts), one, other, p_value)


def _keys(found: Comparisons) -> dict[tuple[int, int, int], int]:
    decided = found.targets != 0.5
    rows = zip(found.groups.tolist(), found.indices.tolist(), decided.tolist(), strict=True)
    return {(group, i, j): row for row, (group, (i, j), known) in enumerate(rows) if known}


def _credit(found: Comparisons, row: int) -> float:
    logit, target = found.logits[row], found.targets[row]
    return 0.5 if logit == 0 else float((logit > 0) == (target > 0.5))
