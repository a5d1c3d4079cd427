"""What other thresholds would have masked, recomputed from the recorded p, H and A of one step. Pure.

The rule is S2T's (arXiv 2602.15620): a token is silenced iff A > 0 and p < tau_p and H < tau_h, all strict, tau_h
being a quantile of H over its mini-batch. Everything stays in float32, as the trainer compared it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from api.store.recordings import Columns, spans

Scope = Literal["candidates", "all_tokens"]
Array = np.ndarray[Any, Any]

COLUMNS = ("position", "p", "entropy", "advantage", "masked", "grad_norm", "tau_p", "tau_h", "scored")


@dataclass(frozen=True)
class Thresholds:
    """What to simulate; `tau_p` None takes what each mini-batch had."""

    tau_p: float | None
    entropy_quantile: float
    entropy_scope: Scope


@dataclass(frozen=True)
class MinibatchMask:
    """The thresholds of one mini-batch, and how many entropies the quantile was taken over."""

    tau_p: float
    tau_h: float | None
    num_population: int


@dataclass(frozen=True)
class Simulated:
    """The mask of a whole step under other thresholds. Arrays run over the step's tokens."""

    minibatches: list[MinibatchMask]
    is_positive: Array
    is_candidate: Array
    is_masked: Array


def simulate(columns: Columns, thresholds: Thresholds, *, num_minibatches: int, group_size: int) -> Simulated:
    """Applies S2T to each mini-batch of the step; responses stand group by group, as the learner cut them."""
    entropies = columns["entropy"]
    is_positive = columns["advantage"] > 0
    is_candidate = np.zeros_like(is_positive)
    is_masked = np.zeros_like(is_positive)
    told = []
    for start, stop in cut_minibatches(columns["position"], num_minibatches=num_minibatches, group_size=group_size):
        part = slice(start, stop)
        own = columns["tau_p"][start]
        tau_p = np.float32(own if thresholds.tau_p is None else thresholds.tau_p)
        is_candidate[part] = is_positive[part] & (columns["p"][part] < tau_p)
        is_in_scope = is_candidate[part] if thresholds.entropy_scope == "candidates" else slice(None)
        population = entropies[part][is_in_scope]
        population = population[np.isfinite(population)]  # a sampler need not tell the entropy of what nobody scored
        tau_h = quantile(population, thresholds.entropy_quantile)
        if tau_h is not None:
            is_masked[part] = is_candidate[part] & (entropies[part] < tau_h)
        shown = None if tau_h is None else float(tau_h)
        told.append(MinibatchMask(tau_p=float(tau_p), tau_h=shown, num_population=len(population)))
    return Simulated(told, is_positive, is_candidate, is_masked)


def cut_minibatches(positions: Array, *, num_minibatches: int, group_size: int) -> list[tuple[int, int]]:
    """Where the tokens of each mini-batch begin and end."""
    starts, _ = spans(positions)
    num_groups = len(starts) // group_size
    size = max(1, num_groups // num_minibatches) * group_size
    firsts = starts[::size]
    return list(zip(firsts, [*firsts[1:], len(positions)], strict=True))


def quantile(values: Array, share: float) -> np.float32 | None:
    """The quantile by linear interpolation between neighbours, in float32; None for no value."""
    if len(values) == 0:
        return None
    place = share * (len(values) - 1)
    below = min(int(place), len(values) - 1)
    above = min(below + 1, len(values) - 1)
    parted = np.partition(values, [below, above])
    lower, upper, weight = parted[below], parted[above], np.float32(place - below)
    if weight < np.float32(0.5):  # the same two branches as the trainer's interpolation
        return np.float32(lower + weight * (upper - lower))
    return np.float32(upper - (upper - lower) * (np.float32(1.0) - weight))
