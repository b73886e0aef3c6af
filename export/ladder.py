"""Which activations of a graph get which 8-bit scheme: plans from the fastest to the most exact. Pure Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ranker.export.rounding import Scheme, outlier_count

FINER: Final = 0.9
"""The error of the next plan to try, at most, as a share of the last one's."""

HOPE: Final = 1.6
"""How much more error than expected a plan may have that is tried: tau differs from plan to plan of the same error.

With less, plans that would have passed are left out; of six searches two then ended at plans of 1.3 and 1.6 times the
time.
"""

LEAST_INT8: Final = 0.5
"""Least share of the multiplications in 8 bits; a file with fewer would be called int8 and be as slow as fp32."""

INT8_PRODUCT: Final = 0.004
FP32_PRODUCT: Final = 0.013
OUTLIER_PRODUCT: Final = 0.018
OUTLIER_INPUT: Final = 7.0
OUTLIER_OUTPUT: Final = 0.5
SMOOTHED_INPUT: Final = 0.55
TOKEN_INPUT: Final = 0.45
TOKEN_OUTPUT: Final = 0.5
"""Nanoseconds per multiplication, input or output of a token: MiniLM on an Intel Xeon with VNNI, one thread."""


@dataclass(frozen=True, slots=True)
class Option:
    """What a scheme costs: ``error``, a mean change of the scores, squared, and nanoseconds per token."""

    error: float
    nanoseconds: float


@dataclass(frozen=True, slots=True)
class Rung:
    """A plan: the scheme of each activation, without those that stay fp32, and its expected ``error``."""

    schemes: Mapping[str, Scheme]
    error: float


@dataclass(frozen=True, slots=True)
class Choice:
    """An activation, the multiplications per token of its products, and its options; None keeps them fp32."""

    name: str
    multiplications: int
    options: Mapping[Scheme | None, Option]


def cost(scheme: Scheme | None, inputs: int, outputs: int) -> float:
    """About the nanoseconds per token of an activation's products."""
    products = inputs * outputs
    if scheme is None:
        return FP32_PRODUCT * products
    if scheme == "outliers":
        count = outlier_count(inputs)
        extra = OUTLIER_INPUT * count + OUTLIER_PRODUCT * count * outputs + OUTLIER_OUTPUT * outputs
    else:
        extra = SMOOTHED_INPUT * inputs
    if scheme == "token":
        extra += TOKEN_INPUT * inputs + TOKEN_OUTPUT * outputs
    return INT8_PRODUCT * products + extra


def wanted(rungs: Sequence[Rung], tried: int, tau: float, least_tau: float) -> int | None:
    """The rung to try after one that did not pass; None if it was the last.

    Ranks change as scores do: 1 - tau is about proportional to their mean change, whose square the error is.

    Args:
        rungs: of a ladder.
        tried: the number of the rung.
        tau: its Kendall tau-b.
        least_tau: what passes.
    """
    error = FINER * rungs[tried].error
    if tau < least_tau:
        error = min(error, HOPE * rungs[tried].error * ((1 - least_tau) / (1 - tau)) ** 2)
    last = len(rungs) - 1
    return next((i for i in range(tried + 1, len(rungs)) if rungs[i].error <= error), last if tried < last else None)


def ladder(choices: Sequence[Choice]) -> Iterator[Rung]:
    """Plans from the fastest on, each with less error than the one before.

    Each step changes the activation that takes most error away for its time, as long as ``LEAST_INT8`` of the
    multiplications are in 8 bits.
    """
    plan: dict[str, Scheme | None] = {
        choice.name: min(filter(None, choice.options), key=lambda scheme: choice.options[scheme].nanoseconds)
        for choice in choices
    }
    most = (1 - LEAST_INT8) * sum(choice.multiplications for choice in choices)
    while True:
        error = sum(choice.options[plan[choice.name]].error for choice in choices)
        room = most - sum(choice.multiplications for choice in choices if plan[choice.name] is None)
        yield Rung({name: scheme for name, scheme in plan.items() if scheme is not None}, error)
        steps = [
            (_worth(choice.options[plan[choice.name]], option), choice.name, scheme)
            for choice in choices
            for scheme, option in choice.options.items()
            if option.error < choice.options[plan[choice.name]].error
            and (scheme is not None or choice.multiplications <= room)
        ]
        if not steps:
            return
        _, name, scheme = max(steps, key=lambda step: step[0])
        plan[name] = scheme


def _worth(before: Option, after: Option) -> float:
    """Error that a change takes away for every nanosecond; without end where it costs none."""
    longer = after.nanoseconds - before.nanoseconds
    return (before.error - after.error) / longer if longer > 0 else float("inf")
