"""A recorded step's tokens by probability and entropy: how many lie where, and how heavy they are.

Reads columns through `api.store.recordings`; decides nothing about who may read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from api.errors import Unprocessable
from api.schemas import Plane, PlaneCell, PlanePoint, TokenQuadrants
from api.store.recordings import Columns, finite, read_columns, read_compact

P_DECADES = (-5.0, 0.0)
H_DECADES = (-4.0, 1.0)
CELLS_PER_DECADE = 9
MOST_POINTS = 500
_COLUMNS = ("p", "entropy", "advantage", "grad_norm", "masked", "low_p", "low_h", "tau_p", "tau_h")
Array = np.ndarray[Any, Any]


def token_quadrants(path: Path, job_id: str, step: int) -> TokenQuadrants:
    """Every token with an advantage and an entropy; what lies outside the decades counts in the outermost cells.

    Raises Unprocessable for a step that did not keep the figures of every token.
    """
    if read_compact(path) is not None:
        raise Unprocessable(
            f"Step {step} keeps the figures of few tokens; ask for a step that is a multiple of "
            "config.record_rollouts_every, where every token has them.",
            code="step_recorded_compactly",
            param="step",
        )
    columns = read_columns(path, _COLUMNS)
    known = np.isfinite(columns["entropy"].astype(float)) & (columns["advantage"] != 0)
    columns = {name: column[known] for name, column in columns.items()}
    heights = columns["tau_h"].astype(float)
    heights = heights[np.isfinite(heights)]
    return TokenQuadrants(
        fine_tuning_job_id=job_id,
        step=step,
        num_tokens=int(known.sum()),
        p_decades=P_DECADES,
        entropy_decades=H_DECADES,
        tau_p=sorted({float(value) for value in columns["tau_p"]}),
        tau_h=sorted({float(heights.min()), float(heights.max())}) if len(heights) else [],
        positive=_plane(columns, columns["advantage"] > 0),
        negative=_plane(columns, columns["advantage"] < 0),
    )


def _plane(columns: Columns, chosen: Array) -> Plane:
    part = {name: column[chosen] for name, column in columns.items()}
    places = np.stack([_index(part["p"], P_DECADES), _index(part["entropy"], H_DECADES)], axis=1)
    cells, which = np.unique(places, axis=0, return_inverse=True)
    counts = np.bincount(which.ravel(), minlength=len(cells))
    norms = np.bincount(which.ravel(), np.nan_to_num(part["grad_norm"].astype(float)), minlength=len(cells))
    masked = np.flatnonzero(part["masked"])[:MOST_POINTS]
    return Plane(
        num_tokens=int(chosen.sum()),
        cells=[
            PlaneCell(
                p=_middle(x, P_DECADES), entropy=_middle(y, H_DECADES), count=int(count), grad_norm=float(norm / count)
            )
            for (x, y), count, norm in zip(cells.tolist(), counts, norms, strict=True)
        ],
        quadrants={
            f"{'low' if low_p else 'high'}_p_{'low' if low_h else 'high'}_h": int(
                ((part["low_p"] == low_p) & (part["low_h"] == low_h)).sum()
            )
            for low_p in (True, False)
            for low_h in (True, False)
        },
        masked=[
            PlanePoint(p=float(part["p"][place]), entropy=finite(float(part["entropy"][place])) or 0.0)
            for place in masked
        ],
    )


def _index(values: Array, decades: tuple[float, float]) -> Array:
    low, high = decades
    logs = np.log10(np.clip(values.astype(float), 10**low, 10**high))
    found = np.floor((logs - low) * CELLS_PER_DECADE).astype(int)
    return np.asarray(np.minimum(found, round((high - low) * CELLS_PER_DECADE) - 1))


def _middle(index: int, decades: tuple[float, float]) -> float:
    return float(10 ** (decades[0] + (index + 0.5) / CELLS_PER_DECADE))
