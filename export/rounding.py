"""How the weights and activations of one group of matrix products become 8-bit numbers. Pure numpy.

Outlier channels of the activations are moved into the weights (SmoothQuant, arXiv 2211.10438), further than plain
rounding would allow, because the weights are then rounded one input at a time, and each input corrects the error that
the inputs before it caused in the products of real activations (GPTQ, arXiv 2210.17323). The widest channels may stay
fp32 beside the 8-bit product of all others (LLM.int8, arXiv 2208.07339), which then have a finer scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ranker.scoring.protocol import Floats

PERCENTILES: Final = (100.0, 99.99, 99.9)
"""Percentiles of an activation's numbers beyond which a fixed scale clips them, where clipping loses less."""

Scheme = Literal["fixed", "outliers", "token"]
"""How an activation gets its 8 bits: a fixed scale, one beside outlier channels in fp32, or a scale per token."""

SMOOTHINGS: Final = (0.5, 0.65, 0.8, 0.9)
"""Shares of a channel's range that move into the weights, between 0 (nothing) and 1 (all of it)."""

SMOOTHINGS_BESIDE: Final = (0.0, 0.8)
"""Those that are tried beside outlier channels. With 0 nothing is multiplied, which is faster."""

UNSMOOTHED: Final = 1.25
"""How much larger the error of no smoothing may be, for its speed."""

CHOICE_TOKENS: Final = 512
"""Tokens on which a smoothing is chosen."""

OUTLIERS: Final = 24
"""One channel in so many is an outlier."""

GPTQ_RESIDUAL: Final = 0.25
"""Part of plain rounding's squared error that remains after GPTQ; measured 0.05 to 0.3 for K of 384 and 1536."""

DAMPING: Final = 0.01
BLOCK: Final = 32
"""Inputs that are rounded together, and that share a scale with scales per block."""

TINY: Final = np.float32(1e-9)


@dataclass(frozen=True, slots=True)
class ActivationStats:
    """Statistics of an activation with K channels: ``low`` and ``high`` (K,), and ``states`` (tokens, K)."""

    low: Floats
    high: Floats
    states: Floats


@dataclass(frozen=True, slots=True)
class Rounded:
    """An activation and its products in 8 bits.

    An activation x is ``q = round(x / smoothing / scale) + zero_point``, u8; its scale is fixed or per token. A product
    is ``scale * (q - zero_point) @ weights * weight_scale``. ``smoothing`` (K,), ``weights`` i8 (K, N) and
    ``weight_scale`` (N,) per product; ``scale`` is None for scales per token; ``error`` is the mean square of the
    products' weighted error. Channels in ``outliers`` (n,) have no part in ``weights``: ``x[outliers] @
    outlier_weights``, (n, N) per product, is added. ``shift`` (N,) per product is what rounding takes from the products
    on average, to be added to their bias (arXiv 1906.04721).
    """

    smoothing: Floats
    zero_point: int
    scale: np.float32 | None
    weights: tuple[NDArray[np.int8], ...]
    weight_scale: tuple[Floats, ...]
    error: float
    outliers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    outlier_weights: tuple[Floats, ...] = ()
    shift: tuple[Floats, ...] = ()


class Rounder:
    """What rounding the products of an activation with ``weights`` (K, N) each may cost, and the numbers.

    Args:
        seen: the activation.
        weights: of its products.
    """

    def __init__(self, seen: ActivationStats, weights: Sequence[Floats]) -> None:
        self._seen, self._weights = seen, weights
        self._joined = np.concatenate(weights, axis=1)
        self._truth = seen.states @ self._joined
        self._weight = _weight(self._truth)
        self._choices: dict[Scheme, tuple[_Split, float]] = {}

    def estimate(self, scheme: Scheme) -> float:
        """About the error of ``rounded``, on some tokens and without its search for the best weights."""
        return self._chosen(scheme)[1]

    def rounded(self, scheme: Scheme) -> Rounded:
        """The numbers under the smoothing that loses least."""
        split = self._chosen(scheme)[0]
        int8_weights, weight_scale = gptq_round(split.weights, self._weight * split.states)
        error, grid = min(
            (self._lost(split, _activations(split.states, *grid), int8_weights * weight_scale), grid)
            for grid in self._grids(split, scheme)
        )
        ends = np.cumsum([matrix.shape[1] for matrix in self._weights])[:-1]
        return Rounded(
            smoothing=split.smoothing,
            zero_point=grid[0],
            scale=grid[1],
            weights=tuple(np.split(int8_weights, ends, axis=1)),
            weight_scale=tuple(np.split(weight_scale, ends)),
            error=error,
            outliers=split.outliers,
            outlier_weights=tuple(np.split(self._joined[split.outliers], ends, axis=1)),
            shift=tuple(np.split(self._shift(split, grid, int8_weights * weight_scale), ends)),
        )

    def _shift(self, split: _Split, grid: tuple[int, np.float32 | None], weights: Floats) -> Floats:
        """What the products lack on average (N,), tokens weighted as their errors are."""
        lacking = self._truth - _activations(split.states, *grid) @ weights - split.outlier_part
        return np.asarray(np.average(lacking, axis=0, weights=np.square(self._weight[:, 0])), np.float32)

    def _chosen(self, scheme: Scheme) -> tuple[_Split, float]:
        """The best split of the ranges, and about its error."""
        if scheme not in self._choices:
            self._choices[scheme] = self._searched(scheme)
        return self._choices[scheme]

    def _searched(self, scheme: Scheme) -> tuple[_Split, float]:
        splits = [self._split(share, scheme) for share in (SMOOTHINGS_BESIDE if scheme == "outliers" else SMOOTHINGS)]
        costs = [self._cost(split, scheme) for split in splits]
        if scheme == "outliers" and costs[0] <= UNSMOOTHED * min(costs):
            return splits[0], costs[0]
        best = int(np.argmin(costs))
        return splits[best], costs[best]

    def _split(self, share: float, scheme: Scheme) -> _Split:
        smoothing = _smoothing(self._seen, self._joined, share) if share else np.ones(len(self._joined), np.float32)
        states, weights = self._seen.states / smoothing, self._joined * smoothing[:, None]
        low, high = self._seen.low / smoothing, self._seen.high / smoothing
        outliers = np.zeros(0, np.int64)
        if scheme == "outliers":
            widest = np.argsort(-np.maximum(-low, high), kind="stable")
            outliers = np.sort(widest[: outlier_count(len(low))])
            outlier_part = self._seen.states[:, outliers] @ self._joined[outliers]
            for values in (states.T, weights, low, high):
                values[outliers] = 0
            return _Split(smoothing, outliers, states, weights, low, high, outlier_part)
        return _Split(smoothing, outliers, states, weights, low, high, np.zeros((1, 1), np.float32))

    def _cost(self, split: _Split, scheme: Scheme) -> float:
        int8_weights, weight_scale = _nearest(split.weights)
        some = slice(None, None, -(-len(split.states) // CHOICE_TOKENS))
        states = split.states[some]
        activations = min(
            self._lost(split, _activations(states, *grid), split.weights, some) for grid in self._grids(split, scheme)
        )
        return activations + GPTQ_RESIDUAL * self._lost(split, states, int8_weights * weight_scale, some)

    def _grids(self, split: _Split, scheme: Scheme) -> list[tuple[int, np.float32 | None]]:
        """Zero points and scales to try; all percentiles where the scale is fixed."""
        if scheme == "token":
            return [_token_grid(split.states)]
        return [_fixed_grid(split, percentile) for percentile in PERCENTILES]

    def _lost(self, split: _Split, states: Floats, weights: Floats, tokens: slice = slice(None)) -> float:
        errors = self._weight[tokens] * (states @ weights + split.outlier_part[tokens] - self._truth[tokens])
        return float(np.mean(errors**2))


@dataclass(frozen=True, slots=True)
class _Split:
    """An activation whose ranges were moved: ``states`` (tokens, K) and their ends, ``weights`` (K, N), and outliers.

    ``outlier_part`` (tokens, N), or (1, 1), is what outlier channels add; they are zero in the others.
    """

    smoothing: Floats
    outliers: NDArray[np.int64]
    states: Floats
    weights: Floats
    low: Floats
    high: Floats
    outlier_part: Floats


def outlier_count(inputs: int) -> int:
    """How many of so many channels are outliers."""
    return max(1, inputs // OUTLIERS)


def token_scales(states: Floats, zero_point: int) -> Floats:
    """The scale of every token (tokens, 1): the smallest under which its lowest and highest value fit."""
    high, low = states.max(axis=1, keepdims=True), states.min(axis=1, keepdims=True)
    above, below = factors(zero_point)
    return np.asarray(np.maximum(np.maximum(high * above, low * below), TINY), np.float32)


def factors(zero_point: int) -> tuple[np.float32, np.float32]:
    """The factors from a token's highest and lowest value to its scale."""
    return np.float32(1 / (255 - zero_point)), np.float32(-1 / zero_point)


def _weight(products: Floats) -> Floats:
    """The weight of an error per token (tokens, 1): smaller for large products, because norms follow."""
    squares = np.mean(products**2, axis=1, keepdims=True)
    return np.asarray(1 / np.sqrt(np.maximum(squares + np.median(squares), 1e-12)), np.float32)


def _smoothing(seen: ActivationStats, weights: Floats, share: float) -> Floats:
    widest, heaviest = np.maximum(-seen.low, seen.high), np.abs(weights).max(axis=1)
    # A channel that was near zero may be larger later: it is scaled up at most a hundredfold.
    widest, heaviest = (np.maximum(sizes, max(1e-2 * float(np.median(sizes)), 1e-5)) for sizes in (widest, heaviest))
    smoothing = widest**share / heaviest ** (1 - share)
    return np.asarray(smoothing / smoothing.mean(), np.float32)


def _token_grid(states: Floats) -> tuple[int, None]:
    """The zero point among the 256 steps of scales per token."""
    high, low = np.maximum(states.max(axis=1), 0), np.maximum(-states.min(axis=1), 0)
    share = float(np.median(low / np.maximum(high + low, TINY)))
    return min(max(round(255 * share), 1), 254), None


def _fixed_grid(split: _Split, percentile: float) -> tuple[int, np.float32]:
    """The zero point among the 256 steps, and the step size for all numbers up to a percentile."""
    ends = (float(split.low.min()), float(split.high.max()))
    if percentile < 100:
        ends = tuple(np.percentile(split.states, (100 - percentile, percentile)).tolist())
    low, high = min(0.0, ends[0]), max(0.0, ends[1])
    step = max((high - low) / 255, float(TINY))
    return min(max(round(-low / step), 0), 255), np.float32(step)


def _activations(states: Floats, zero_point: int, scale: np.float32 | None) -> Floats:
    """States after quantising and dequantising."""
    steps = token_scales(states, zero_point) if scale is None else scale
    return np.asarray((np.clip(np.round(states / steps) + zero_point, 0, 255) - zero_point) * steps, np.float32)


def blocks(weights: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """Weights (K, N) with a scale for every ``BLOCK`` inputs: u8 (N, blocks, BLOCK) around 128, scales (N, blocks)."""
    short = -len(weights) % BLOCK
    parts = np.pad(weights.T, ((0, 0), (0, short))).reshape(weights.shape[1], -1, BLOCK)
    scales = (np.maximum(np.abs(parts).max(axis=2), TINY) / 127).astype(np.float32)
    return np.clip(np.round(parts / scales[:, :, None]) + 128, 0, 255).astype(np.uint8), scales


def _nearest(weights: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Weights rounded to the nearest of 255 steps per output."""
    weight_scale = (np.maximum(np.abs(weights).max(axis=0), TINY) / 127).astype(np.float32)
    return np.clip(np.round(weights / weight_scale), -127, 127).astype(np.int8), weight_scale


def gptq_round(weights: Floats, states: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Weights rounded one input after the other; later inputs correct the error of earlier ones (GPTQ)."""
    _, weight_scale = _nearest(weights)
    rest, inputs = weights.astype(np.float64), len(weights)
    hessian = (states.T @ states).astype(np.float64)
    hessian += np.eye(inputs) * max(DAMPING * np.trace(hessian) / inputs, 1e-12)
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    int8_weights = np.zeros(weights.shape, np.int8)
    for start in range(0, inputs, BLOCK):
        block = slice(start, min(start + BLOCK, inputs))
        errors = np.zeros((block.stop - start, weights.shape[1]))
        for i in range(start, block.stop):
            int8_weights[i] = np.clip(np.round(rest[i] / weight_scale), -127, 127)
            errors[i - start] = (rest[i] - int8_weights[i] * weight_scale) / upper[i, i]
            rest[i + 1 : block.stop] -= np.outer(upper[i, i + 1 : block.stop], errors[i - start])
        rest[block.stop :] -= upper[block, block.stop :].T @ errors
    return int8_weights, weight_scale
