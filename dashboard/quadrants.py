"""Tokens by probability and entropy on logarithmic axes: which responses to take, cells with counts, a chart. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

JsonObject = dict[str, Any]
Layer = Literal["Density", "Gradient norm"]
LAYERS: tuple[Layer, ...] = ("Density", "Gradient norm")

_P_DECADES = (-5.0, 0.0)
_H_DECADES = (-4.0, 1.0)
_CELLS_PER_DECADE = 9
_BLUE, _ORANGE, _INK = "#2f8fd0", "#e0752d", "#8a94a3"


@dataclass(frozen=True)
class Cell:
    """The tokens of one small square of the plane."""

    p: float
    entropy: float
    count: int
    grad_norm: float
    """Mean over the cell."""


def sampled(rows: Sequence[JsonObject], *, max_responses: int, max_tokens: int) -> list[JsonObject]:
    """Responses with an advantage, evenly from the whole step, as many as the two bounds allow."""
    scored = [row for row in rows if row["advantage"] != 0]
    stride = max(1, math.ceil(len(scored) / max_responses))
    first = [row for row in scored if row["num_masked"]]
    taken: list[JsonObject] = []
    for row in [*first, *(row for row in scored[::stride] if not row["num_masked"])]:
        if len(taken) == max_responses or sum(each["length"] for each in [*taken, row]) > max_tokens:
            break
        taken.append(row)
    return taken


def split(details: Iterable[JsonObject]) -> tuple[list[JsonObject], list[JsonObject]]:
    """The tokens with A > 0, and those with A < 0."""
    tokens = [token for detail in details for token in detail["tokens"] if token["entropy"] is not None]
    return [token for token in tokens if token["advantage"] > 0], [token for token in tokens if token["advantage"] < 0]


def cells(tokens: Iterable[JsonObject]) -> list[Cell]:
    """The squares that hold tokens; what lies outside the axes counts in the outermost squares."""
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for token in tokens:
        place = (_index(token["p"], _P_DECADES), _index(token["entropy"], _H_DECADES))
        found[place].append(token["grad_norm"] or 0.0)
    return [
        Cell(_middle(x, _P_DECADES), _middle(y, _H_DECADES), len(norms), math.fsum(norms) / len(norms))
        for (x, y), norms in sorted(found.items())
    ]


def quadrant_counts(tokens: Iterable[JsonObject]) -> Counter[str]:
    """How many tokens lie in each quadrant, by their own mini-batch's thresholds."""
    return Counter(
        f"p {'<' if token['low_p'] else '≥'} tau_p, H {'<' if token['low_h'] else '≥'} tau_h" for token in tokens
    )


def chart(tokens: Sequence[JsonObject], layer: Layer, *, is_positive: bool) -> JsonObject:
    """The option of an ECharts scatter of squares, with thresholds drawn and silenced tokens marked."""
    shade = [[cell.p, cell.entropy, _amount(cell, layer)] for cell in cells(tokens)]
    masked = [[_inside(t["p"], _P_DECADES), _inside(t["entropy"], _H_DECADES)] for t in tokens if t["masked"]]
    squares = {"type": "scatter", "name": "tokens", "symbol": "rect", "symbolSize": [10, 7], "data": shade}
    diamonds = {"type": "scatter", "name": "silenced", "symbol": "diamond", "symbolSize": 13, "data": masked}
    diamonds["itemStyle"] = {"color": "transparent", "borderColor": "#d6336c", "borderWidth": 2.5}
    return {
        "animation": False,
        "grid": {"left": 10, "right": 30, "top": 24, "bottom": 30},
        "xAxis": _axis("probability p", _P_DECADES, gap=24),
        "yAxis": _axis("entropy H (nats)", _H_DECADES, gap=48),
        "visualMap": {
            "show": False,
            "seriesIndex": 0,
            "dimension": 2,
            "min": 0,
            "max": max((amount for _, _, amount in shade), default=0.0) or 1.0,
            "inRange": {"color": [_BLUE if is_positive else _ORANGE], "opacity": [0.16, 1.0]},
        },
        "series": [squares, *_thresholds(tokens), diamonds],
    }


def _amount(cell: Cell, layer: Layer) -> float:
    return math.log10(cell.count) if layer == "Density" else cell.grad_norm


def _thresholds(tokens: Sequence[JsonObject]) -> list[JsonObject]:
    """Lines at tau_p and at the least and greatest tau_h of the mini-batches."""
    (left, right), (low, high) = ([10.0**decade for decade in axis] for axis in (_P_DECADES, _H_DECADES))
    heights = [token["tau_h"] for token in tokens if token["tau_h"]]
    lines = [("tau_p", [[tau_p, low], [tau_p, high]]) for tau_p in sorted({token["tau_p"] for token in tokens})]
    ends = sorted({min(heights), max(heights)}) if heights else []
    lines += [("tau_h", [[left, tau_h], [right, tau_h]]) for tau_h in ends]
    return [
        {
            "type": "line",
            "name": name,
            "data": points,
            "symbol": "none",
            "silent": True,
            "lineStyle": {"color": _INK, "type": "dashed", "width": 1.5},
            "endLabel": {"show": True, "formatter": name, "color": _INK, "offset": [-8, -8]},
        }
        for name, points in lines
    ]


def _axis(name: str, decades: tuple[float, float], *, gap: int) -> JsonObject:
    return {
        "type": "log",
        "min": 10 ** decades[0],
        "max": 10 ** decades[1],
        "name": name,
        "nameLocation": "middle",
        "nameGap": gap,
        "splitLine": {"lineStyle": {"opacity": 0.25}},
    }


def _inside(value: float, decades: tuple[float, float]) -> float:
    return float(min(max(value, 10 ** decades[0]), 10 ** decades[1]))


def _index(value: float, decades: tuple[float, float]) -> int:
    place = (math.log10(_inside(value, decades)) - decades[0]) * _CELLS_PER_DECADE
    return min(int(place), round((decades[1] - decades[0]) * _CELLS_PER_DECADE) - 1)


def _middle(index: int, decades: tuple[float, float]) -> float:
    return float(10 ** (decades[0] + (index + 0.5) / _CELLS_PER_DECADE))
