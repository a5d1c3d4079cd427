"""Which rows of long curves are worth sending: every curve's ends, extremes and spikes survive. Pure, knows no SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_ROOM_FOR_STRETCHES = 0.5
"""The share of the rows that each curve's extremes per stretch may take; the rest goes to what stands out most."""

_LARGEST = 1e150
"""Sums take no value beyond it, so that they stay within a double however large a metric is."""


@dataclass(frozen=True)
class Curve:
    """One curve, cut into parts that follow each other: what is least and greatest in each, and at which place.

    A part may be a single value or many; `totals`, `squares` and `counts` are sums over its values.
    """

    least: Array
    least_at: Array
    greatest: Array
    greatest_at: Array
    totals: Array
    squares: Array
    counts: Array

    @classmethod
    def of(cls, values: Array, places: Array) -> Curve:
        """A curve of single values; NaN stands for none."""
        known = ~np.isnan(values)
        values, places = values[known], places[known]
        bounded = np.clip(values, -_LARGEST, _LARGEST)
        return cls(values, places, values, places, bounded, np.square(bounded), np.ones(len(values)))

    def join(self, later: Curve) -> Curve:
        """This curve and what follows it."""
        pairs = ((getattr(self, name), getattr(later, name)) for name in self.__dataclass_fields__)
        return Curve(*(np.concatenate(pair) for pair in pairs))

    def cut(self, num_parts: int) -> Curve:
        """The same curve in at most so many parts of about equally many values."""
        if len(self.counts) <= 1:
            return self
        before = np.cumsum(self.counts) - self.counts
        part = (before * num_parts / self.counts.sum()).astype(np.int64)
        starts = np.flatnonzero(np.diff(part, prepend=-1))
        sizes = np.diff(starts, append=len(part))
        least, greatest = np.minimum.reduceat(self.least, starts), np.maximum.reduceat(self.greatest, starts)
        return Curve(
            least,
            self.least_at[_first_equal(self.least, least, starts, sizes)],
            greatest,
            self.greatest_at[_first_equal(self.greatest, greatest, starts, sizes)],
            *(np.add.reduceat(each, starts) for each in (self.totals, self.squares, self.counts)),
        )


def survivors(curves: Sequence[Curve], ends: Sequence[int], max_points: int) -> Array:
    """At most about `max_points` places, in order.

    `ends` stay. Of each of equal stretches the least and greatest value of every curve stay; the stretches are as
    short as half the rows allow. The other half goes to the extremes of shorter stretches that lie farthest from what
    is usual near them, so that a spike of one step is drawn wherever it stands.
    """
    kept = set(ends)
    num_stretches = max(1, int(_ROOM_FOR_STRETCHES * max_points) // (2 * max(1, len(curves))))
    for curve in curves:
        stretches = curve.cut(num_stretches)
        kept |= {*stretches.least_at.tolist(), *stretches.greatest_at.tolist()}
    if curves and len(kept) < max_points:
        fine = [_outliers(curve, max_points // 2) for curve in curves]
        places, sizes = (np.concatenate([each[part] for each in fine]) for part in (0, 1))
        for place in places[np.argsort(-sizes, kind="stable")].tolist():
            if len(kept) >= max_points:
                break
            kept.add(place)
    return np.array(sorted(kept), dtype=np.int64)


def _outliers(curve: Curve, num_stretches: int) -> tuple[Array, Array]:
    """Where a curve is least and greatest in each stretch, and how far that lies from the stretch's mean, in stds."""
    stretches = curve.cut(max(1, num_stretches))
    means = stretches.totals / stretches.counts
    count = max(1.0, float(curve.counts.sum()))
    variance = float(curve.squares.sum()) / count - (float(curve.totals.sum()) / count) ** 2
    scale = float(np.sqrt(max(variance, 0.0))) or 1.0
    sizes = np.concatenate([means - stretches.least, stretches.greatest - means]) / scale
    return np.concatenate([stretches.least_at, stretches.greatest_at]), sizes


def _first_equal(values: Array, wanted: Array, starts: Array, sizes: Array) -> Array:
    """The first place in each stretch that holds the stretch's wanted value."""
    equal = np.flatnonzero(values == np.repeat(wanted, sizes))
    return equal[np.searchsorted(equal, starts)]
