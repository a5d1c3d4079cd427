"""What other thresholds would have masked, recomputed from the recorded p, H and A of one step. Pure.

The rule is S2T's (arXiv 2602.15620): a token is silenced iff A > 0 and p < tau_p and H < tau_h, all strict, tau_h
being a quantile of H over its mini-batch. Everything stays in float32, as the trainer compared it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from api.store.recordings import Columns, Compact, EntropySketch, spans

Scope = Literal["candidates", "all_tokens"]
Array = np.ndarray[Any, Any]

ROUNDING = 1e-5  # nats by which the trainer's float32 may differ from the bins' arithmetic
COLUMNS = ("position", "p", "entropy", "advantage", "masked", "grad_norm", "tau_p", "tau_h", "scored")


@dataclass(frozen=True)
class Thresholds:
    """What to simulate; `tau_p` None takes what each mini-batch had."""

    tau_p: float | None
    entropy_quantile: float
    entropy_scope: Scope


@dataclass(frozen=True)
class MinibatchMask:
    """The thresholds of one mini-batch, and how many entropies the quantile was taken over.

    `tau_h` lies within `error` of the true one; `undecided` candidates have an entropy in that reach.
    """

    tau_p: float
    tau_h: float | None
    num_population: int
    error: float = 0.0
    undecided: int = 0


@dataclass(frozen=True)
class Simulated:
    """The mask of a whole step under other thresholds. Arrays run over the step's tokens."""

    minibatches: list[MinibatchMask]
    is_positive: Array
    is_candidate: Array
    is_masked: Array


def simulate(
    columns: Columns,
    thresholds: Thresholds,
    *,
    num_minibatches: int,
    group_size: int,
    compact: Compact | None = None,
    own: Thresholds | None = None,
) -> Simulated:
    """Applies S2T to each mini-batch of the step; responses stand group by group, as the learner cut them.

    A `compact` step can tell of no tau_p above `compact.kept_below`. It knows a quantile over all tokens within half a
    bin of its sketch, but where it is that of the run's `own` thresholds: that one was recorded.
    """
    entropies = columns["entropy"]
    is_positive = columns["advantage"] > 0
    is_candidate = np.zeros_like(is_positive)
    is_masked = np.zeros_like(is_positive)
    told = []
    cuts = cut_minibatches(columns["position"], num_minibatches=num_minibatches, group_size=group_size)
    for number, (start, stop) in enumerate(cuts):
        part = slice(start, stop)
        tau_p = np.float32(columns["tau_p"][start] if thresholds.tau_p is None else thresholds.tau_p)
        rare = is_candidate[part] = is_positive[part] & (columns["p"][part] < tau_p)
        if compact is not None and thresholds.entropy_scope == "all_tokens":
            tau_h, error = sketched_quantile(compact.entropies[number], thresholds.entropy_quantile)
            if own is not None and _same_tau_h(thresholds, own):
                tau_h, error = columns["tau_h"][start], 0.0
            num_population = int(compact.entropies[number].counts.sum())
        else:
            population = entropies[part][rare if thresholds.entropy_scope == "candidates" else slice(None)]
            population = population[np.isfinite(population)]  # a sampler need not tell those that nobody scored
            tau_h, error, num_population = quantile(population, thresholds.entropy_quantile), 0.0, len(population)
        if tau_h is None or np.isnan(tau_h):
            told.append(MinibatchMask(float(tau_p), None, num_population))
            continue
        is_masked[part] = rare & (entropies[part] < tau_h)
        undecided = int((rare & (np.abs(entropies[part] - tau_h) <= error)).sum()) if error else 0
        told.append(MinibatchMask(float(tau_p), float(tau_h), num_population, error, undecided))
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


def sketched_quantile(sketch: EntropySketch, share: float) -> tuple[np.float32 | None, float]:
    """The quantile of the counted values and the bound of its error in nats: half a bin; None for no value.

    Each of the two neighbours lies somewhere in its bin, so their interpolation lies in the interpolated bins.
    """
    ends = np.cumsum(sketch.counts)
    num_values = int(ends[-1])
    if num_values == 0:
        return None, 0.0
    place = share * (num_values - 1)
    below = min(int(place), num_values - 1)
    above = min(below + 1, num_values - 1)
    lower, upper = np.searchsorted(ends, [below, above], side="right").tolist()
    width = sketch.top / len(sketch.counts)
    middle = (lower + (place - below) * (upper - lower) + 0.5) * width
    return np.float32(middle), width / 2 + ROUNDING


def _same_tau_h(one: Thresholds, other: Thresholds) -> bool:
    """Over all tokens tau_h hangs on the quantile alone."""
    return (one.entropy_scope, one.entropy_quantile) == (other.entropy_scope, other.entropy_quantile)
