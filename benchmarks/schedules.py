"""How well schedules rank for how few comparisons, in a simulation; prints JSON.

    python benchmarks/schedules.py [--sizes 8 16 64 256] [--worlds 200] > docs/schedules.json

Strengths are standard normal; a comparison's logit is twice the difference of strengths, plus noise of 1.5 that belongs
to the pair, plus 0.7 for the answer that is read first. Noise is the same however often a pair is asked, so that asking
again does not help. Top-1 hit is how often the best candidate comes out first, tau Kendall's of the whole order; both
with their 95 % intervals over worlds.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from ranker.metrics import wilson
from ranker.ranking.aggregation import Comparisons, least_squares
from ranker.ranking.schedules import SCHEDULES, Schedule, sequential_halving

NOISE = 1.5
BIAS = 0.7
SLOPE = 2.0
SMALL_BUDGET = 0.15


class World:
    """Strengths of N candidates and the noise of their pairs."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng([n, seed])
        self.strengths = rng.normal(size=n)
        noise = np.triu(rng.normal(size=(n, n)) * NOISE, 1)
        self.noise = noise - noise.T

    def logits(self, pairs: list[tuple[int, int]]) -> np.ndarray:
        """Log-odds that the first of each pair is better."""
        a, b = np.array(pairs).T
        return SLOPE * (self.strengths[a] - self.strengths[b]) + self.noise[a, b] + BIAS


def both_orders(n: int, rng: np.random.Generator) -> object:
    """Every ordered pair."""
    yield [(i, j) for i in range(n) for j in range(n) if i != j]


def played(schedule: Schedule, n: int, seed: int) -> tuple[World, Comparisons, int]:
    """A world and all comparisons of a schedule in it, and the number of rounds."""
    world, seen, rounds = World(n, seed), Comparisons(n), 0
    steps = schedule(n, np.random.default_rng(seed))
    pairs = next(steps, None)
    while pairs is not None:
        logits = world.logits(pairs)
        seen.add(pairs, logits)
        rounds += 1
        try:
            pairs = steps.send(logits)
        except StopIteration:
            pairs = None
    return world, seen, rounds


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 64, 256])
    parser.add_argument("--worlds", type=int, default=200)
    options = parser.parse_args()
    rules = {"all, both orders": both_orders, **SCHEDULES, "sequential_halving, a small budget": small_budget}
    figures = [
        {"n": n, "schedule": name} | measured(schedule, n, max(20, options.worlds // 4) if n > 64 else options.worlds)
        for n in options.sizes
        for name, schedule in rules.items()
    ]
    shared = {"date": time.strftime("%Y-%m-%d"), "numpy": np.__version__, "small_budget": SMALL_BUDGET}
    print(json.dumps(shared | {"figures": figures}, indent=1))


def small_budget(n: int, rng: np.random.Generator) -> object:
    """Sequential halving with a fixed share of all ordered pairs."""
    return sequential_halving(n, rng, int(SMALL_BUDGET * n * (n - 1)))


def measured(schedule: Schedule, n: int, worlds: int) -> dict[str, Any]:
    """The means over worlds of one schedule among n candidates."""
    hits, taus, counts, rounds = 0, [], [], []
    for seed in range(worlds):
        world, seen, played_rounds = played(schedule, n, seed)
        scores = least_squares(seen).scores
        hits += int(scores.argmax() == world.strengths.argmax())
        taus.append(kendalltau(scores, world.strengths).statistic)
        counts.append(len(seen))
        rounds.append(played_rounds)
    return {
        "comparisons": float(np.mean(counts)),
        "share": float(np.mean(counts)) / (n * (n - 1)),
        "rounds": float(np.mean(rounds)),
        "hit": asdict(wilson(hits, worlds)),
        "tau": float(np.mean(taus)),
        "tau_half": float(1.96 * np.std(taus) / math.sqrt(worlds)),
    }


if __name__ == "__main__":
    main()
