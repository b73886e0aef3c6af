"""Is one model better than another on the same comparisons?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.evaluation.statistics.bootstrap import clustered_mean
from ranker.extras import require
from ranker.metrics import Comparisons, Estimate, credit


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
    """Compare two models on the decided comparisons that both have; None without any, as when one model failed."""
    keys = [_keys(compared) for compared in (first, second)]
    shared = sorted(keys[0].keys() & keys[1].keys())
    if not shared:
        return None
    credits = [
        credit(compared)[[rows[key] for key in shared]] for compared, rows in zip((first, second), keys, strict=True)
    ]
    difference = credits[1] - credits[0]
    prompts = np.array([first.prompts[keys[0][key]] for key in shared], np.intp)
    first_only = int((difference < 0).sum())
    second_only = int((difference > 0).sum())
    discordant = first_only + second_only
    p_value = float(require("scipy.stats").binomtest(first_only, discordant).pvalue) if discordant else 1.0
    return Paired(clustered_mean(difference, prompts), first_only, second_only, p_value)


def _keys(compared: Comparisons) -> dict[tuple[int, int, int], int]:
    decided = compared.targets != 0.5
    rows = zip(compared.groups.tolist(), compared.indices.tolist(), decided.tolist(), strict=True)
    return {(group, i, j): row for row, (group, (i, j), known) in enumerate(rows) if known}
