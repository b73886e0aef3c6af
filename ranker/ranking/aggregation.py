"""From comparisons to scores: the scores of N candidates, their errors, and where the comparisons disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ranker.metrics import sigmoid

Doubles = NDArray[np.float64]
AggregatorName = Literal["least_squares", "bradley_terry", "win_rate", "mean_probability"]

DRAWS: Final = 4000
"""Draws that estimate the confidence in the first candidate."""

RIDGE: Final = 1e-3
"""Prior precision of Bradley-Terry strengths; without it the strength of a candidate that always wins is infinite."""


class Comparisons:
    """Comparisons of N candidates so far: ``first``, ``second`` (M,) indices, ``logits`` (M,) of the first winning."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._pairs: list[tuple[int, int]] = []
        self._logits: list[float] = []
        self._met: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, pairs: Sequence[tuple[int, int]], logits: Sequence[float] | NDArray[np.float32]) -> None:
        """Add a round.

        Raises:
            ValueError: not one finite logit per pair.
        """
        values = np.asarray(logits, np.float64)
        if values.shape != (len(pairs),) or not np.isfinite(values).all():
            raise ValueError(f"expected a finite logit for each of {len(pairs)} pairs, got {values.tolist()!r:.80}")
        self._pairs += pairs
        self._logits += values.tolist()
        self._met.update((min(pair), max(pair)) for pair in pairs)

    def met(self, a: int, b: int) -> bool:
        """Whether the two were compared, in either order."""
        return (min(a, b), max(a, b)) in self._met

    @property
    def first(self) -> NDArray[np.intp]:
        """Candidates that were read first (M,)."""
        return np.array([a for a, _ in self._pairs], np.intp)

    @property
    def second(self) -> NDArray[np.intp]:
        """Candidates that were read second (M,)."""
        return np.array([b for _, b in self._pairs], np.intp)

    @property
    def logits(self) -> Doubles:
        """Log-odds that the first is better (M,)."""
        return np.array(self._logits, np.float64)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Scores (N,) whose mean is zero, the covariance (N, N) of their errors, and the bias towards the first place."""

    scores: Doubles
    covariance: Doubles
    bias: float = 0.0

    @property
    def errors(self) -> Doubles:
        """Standard errors (N,)."""
        deviations: Doubles = np.sqrt(np.maximum(np.diag(self.covariance), 0))
        return deviations

    def chances(self, seed: int = 0) -> Doubles:
        """Probability (N,) of each candidate to be the best, under normal errors."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        draws = self.scores + np.random.default_rng(seed).normal(size=(DRAWS, len(values))) @ root.T
        shares: Doubles = np.bincount(draws.argmax(axis=1), minlength=len(values)) / DRAWS
        return shares

    def confidence(self, seed: int = 0) -> float:
        """Probability that the candidate with the highest score is the best; 1 of a single one."""
        return float(self.chances(seed)[int(self.scores.argmax())]) if len(self.scores) > 1 else 1.0


def least_squares(seen: Comparisons) -> Aggregate:
    """The scores whose differences fit the logits best, ``logit = s_first - s_second + bias`` (arXiv 2405.05894).

    Where no chain of comparisons connects two candidates, each connected part has scores around zero. The bias is
    fitted where the comparisons determine it. Errors are those of ordinary least squares; without degrees of freedom
    the variance of a comparison is taken to be 1.
    """
    n, m = seen.n, len(seen)
    first, second, logits = seen.first, seen.second, seen.logits
    normal, right = np.zeros((n + 1, n + 1)), np.zeros(n + 1)
    normal[:n, :n] = _laplacian(n, first, second, np.ones(m))
    normal[:n, n] = normal[n, :n] = np.bincount(first, minlength=n) - np.bincount(second, minlength=n)
    normal[n, n], right[n] = m, logits.sum()
    np.add.at(right, first, logits)
    np.add.at(right, second, -logits)
    size = n if m <= n else n + 1  # too few to tell a bias from chance
    inverse = np.linalg.pinv(normal[:size, :size], hermitian=True)
    solution = np.zeros(n + 1)
    solution[:size] = inverse @ right[:size]
    residuals = logits - (solution[first] - solution[second] + solution[n])
    free = m - int(np.linalg.matrix_rank(normal[:size, :size], hermitian=True)) if m else 0
    variance = float(residuals @ residuals) / free if free > 0 else 1.0
    return Aggregate(solution[:n], np.asarray(inverse[:n, :n] * variance, np.float64), float(solution[n]))


def _laplacian(n: int, first: NDArray[np.intp], second: NDArray[np.intp], weight: Doubles) -> Doubles:
    """Sum over comparisons of ``weight (e_first - e_second)(e_first - e_second)^T``: (N, N)."""
    laplacian = np.zeros((n, n))
    for one, other, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
        np.add.at(laplacian, (one, other), sign * weight)
    return laplacian


def bradley_terry(seen: Comparisons) -> Aggregate:
    """Maximum likelihood of Bradley and Terry (1952) with the logits' probabilities as soft outcomes.

    A weak normal prior (precision ``RIDGE``) keeps the strength of a candidate that always wins finite. Errors are
    those of the observed information.
    """
    n = seen.n
    first, second = seen.first, seen.second
    won = sigmoid(seen.logits)
    scores = np.zeros(n)
    information = RIDGE * np.eye(n)
    for _ in range(100):
        chance = sigmoid(scores[first] - scores[second])
        gradient = -RIDGE * scores
        np.add.at(gradient, first, won - chance)
        np.add.at(gradient, second, chance - won)
        information = RIDGE * np.eye(n) + _laplacian(n, first, second, chance * (1 - chance))
        step = np.linalg.solve(information, gradient)
        scores = scores + step * min(1.0, 5 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    centre = np.eye(n) - 1 / n
    return Aggregate(scores - scores.mean(), centre @ np.linalg.inv(information) @ centre)


def win_rate(seen: Comparisons) -> Aggregate:
    """The share of a candidate's comparisons that it won (Copeland's method where all met); a draw is half a win."""
    return _shares(seen, (np.sign(seen.logits) + 1) / 2)


def mean_probability(seen: Comparisons) -> Aggregate:
    """A candidate's mean probability of winning over its comparisons."""
    return _shares(seen, sigmoid(seen.logits))


def _shares(seen: Comparisons, won: Doubles) -> Aggregate:
    """Means (N,) over a candidate's comparisons, centred at zero; errors are binomial."""
    total, count = np.zeros(seen.n), np.zeros(seen.n)
    for index, share in ((seen.first, won), (seen.second, 1 - won)):
        np.add.at(total, index, share)
        np.add.at(count, index, 1)
    share = np.where(count > 0, total / np.maximum(count, 1), 0.5)
    return Aggregate(share - share.mean(), np.diag(share * (1 - share) / np.maximum(count, 1)))


AGGREGATORS: Final[dict[AggregatorName, Callable[[Comparisons], Aggregate]]] = {
    "least_squares": least_squares,
    "bradley_terry": bradley_terry,
    "win_rate": win_rate,
    "mean_probability": mean_probability,
}


def win_matrix(seen: Comparisons) -> Doubles:
    """Probabilities (N, N) that the row beats the column, the mean over orders; NaN where they did not meet."""
    total, count = np.zeros((seen.n, seen.n)), np.zeros((seen.n, seen.n))
    chance = sigmoid(seen.logits)
    for one, other, share in ((seen.first, seen.second, chance), (seen.second, seen.first, 1 - chance)):
        np.add.at(total, (one, other), share)
        np.add.at(count, (one, other), 1)
    with np.errstate(invalid="ignore"):
        return total / count


def cycles(seen: Comparisons) -> tuple[int, int]:
    """How many triples are cycles (a beats b beats c beats a), and how many triples met pairwise."""
    beats = win_matrix(seen)
    known = ~np.isnan(beats)
    cyclic = 0
    complete = 0
    for a, b, c in combinations(range(seen.n), 3):
        if known[a, b] and known[b, c] and known[a, c]:
            complete += 1
            one_way = beats[a, b] > 0.5 and beats[b, c] > 0.5 and beats[c, a] > 0.5
            cyclic += one_way or (beats[b, a] > 0.5 and beats[c, b] > 0.5 and beats[a, c] > 0.5)
    return cyclic, complete
