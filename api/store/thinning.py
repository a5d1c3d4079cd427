"""Which rows of long curves are worth sending: every curve's ends, extremes and spikes survive. Pure, knows no SQL."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_ROOM_FOR_STRETCHES = 0.5
"""The share of the rows that each curve's extremes per stretch may take; the rest goes to what stands out most."""
_ENDS = (np.minimum, np.maximum)


def survivors(curves: Array, max_points: int) -> Array:
    """The places of at most about `max_points` columns of `curves` (a row per key, NaN where it has no value).

    The first and last place stay. Of each of equal stretches the least and greatest value of every curve stay; the
    stretches are as short as half the rows allow. The other half goes to the extremes of shorter stretches that lie
    farthest from what is usual near them, so that a spike of one step is drawn wherever it stands.
    """
    num_keys, length = curves.shape
    ends = {0, length - 1}
    num_stretches = max(1, int(_ROOM_FOR_STRETCHES * max_points) // (2 * max(1, num_keys)))
    kept = ends | set(np.concatenate([_extremes(curve, num_stretches)[0] for curve in curves]).tolist())
    room = max_points - len(kept)
    if room <= 0:
        return np.array(sorted(kept))
    fine = [_extremes(curve, max_points // 2) for curve in curves]
    places, sizes = (np.concatenate([each[part] for each in fine]) for part in (0, 1))
    for place in places[np.argsort(-sizes, kind="stable")].tolist():
        if len(kept) >= max_points:
            break
        kept.add(place)
    return np.array(sorted(kept))


def _extremes(curve: Array, num_stretches: int) -> tuple[Array, Array]:
    """Where a curve is least and greatest in each stretch, and how far that lies from the stretch's mean, in stds."""
    known = np.flatnonzero(~np.isnan(curve))
    if len(known) == 0:
        return known, curve[known]
    values = curve[known]
    starts = np.unique(np.arange(num_stretches) * len(values) // num_stretches)
    counts = np.diff(np.append(starts, len(values)))
    least, greatest = (_first_equal(values, each.reduceat(values, starts), starts, counts) for each in _ENDS)
    means = np.add.reduceat(values, starts) / counts
    scale = float(np.std(values)) or 1.0
    places = np.concatenate([least, greatest])
    sizes = np.abs(values[places] - np.concatenate([means, means])) / scale
    return known[places], sizes


def _first_equal(values: Array, wanted: Array, starts: Array, counts: Array) -> Array:
    """The first place in each stretch that holds the stretch's wanted value."""
    equal = np.flatnonzero(values == np.repeat(wanted, counts))
    return equal[np.searchsorted(equal, starts)]
