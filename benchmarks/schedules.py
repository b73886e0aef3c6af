"""How well schedules rank for how few comparisons, in a simulation; prints a table.

    python benchmarks/schedules.py [--sizes 8 16 64 256] [--worlds 200]

Strengths are standard normal; a comparison's logit is twice the difference of strengths, plus noise of 1.5 that belongs
to the pair, plus 0.7 for the answer that is read first. Noise is the same however often a pair is asked, so that asking
again does not help. Top-1 hit is how often the best candidate comes out first, tau Kendall's of the whole order; both
with their 95 % intervals over worlds.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy.stats import kendalltau

from ranker.metrics import wilson
from ranker.ranking.aggregation import Comparisons, least_squares
from ranker.ranking.schedules import SCHEDULES, Schedule, circulant, sequential_halving

NOISE = 1.5
BIAS = 0.7
SLOPE = 2.0


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
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 64, 256])
    parser.add_argument("--worlds", type=int, default=200)
    options = parser.parse_args()
    print("| N | schedule | comparisons | of all ordered pairs | rounds | top-1 hit | tau |\n" + "|---" * 7 + "|")
    for n in options.sizes:
        rules = {"all, both orders": both_orders, **SCHEDULES, "circulant, k=8": lambda n, rng: circulant(n, rng, 8)}
        for share in (0.05, 0.10, 0.15):
            rules[f"sequential_halving, {share:.0%} of both orders"] = lambda n, rng, s=share: sequential_halving(
                n, rng, int(s * n * (n - 1))
            )
        for name, schedule in rules.items():
            worlds = max(20, options.worlds // 4) if n > 64 else options.worlds
            hits = 0
            taus = []
            counts = []
            rounds = []
            for seed in range(worlds):
                world, seen, played_rounds = played(schedule, n, seed)
                scores = least_squares(seen).scores
                hits += int(scores.argmax() == world.strengths.argmax())
                taus.append(kendalltau(scores, world.strengths).statistic)
                counts.append(len(seen))
                rounds.append(played_rounds)
            half = 1.96 * np.std(taus) / math.sqrt(worlds)
            count = np.mean(counts)
            print(
                f"| {n} | {name} | {count:.0f} | {count / (n * (n - 1)):.1%} | {np.mean(rounds):.0f} | "
                f"{wilson(hits, worlds)} | {np.mean(taus):.3f} ± {half:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
