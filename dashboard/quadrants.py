"""Tokens by probability and entropy on logarithmic axes: a plane of the wire shaped into a chart. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

JsonObject = Mapping[str, Any]
Layer = Literal["Density", "Gradient norm"]
Sign = Literal["positive", "negative"]
LAYERS: tuple[Layer, ...] = ("Density", "Gradient norm")
_COLORS: dict[Sign, str] = {"positive": "#2f8fd0", "negative": "#e0752d"}
_INK = "#8a94a3"
_SIDES = {
    "low_p_low_h": "p < tau_p, H < tau_h",
    "low_p_high_h": "p < tau_p, H ≥ tau_h",
    "high_p_low_h": "p ≥ tau_p, H < tau_h",
    "high_p_high_h": "p ≥ tau_p, H ≥ tau_h",
}


def quadrant_words(plane: JsonObject) -> str:
    """`p < tau_p, H < tau_h: 12 · …`: how many tokens lie in each quadrant."""
    return " · ".join(f"{words}: {plane['quadrants'][name]:,}" for name, words in _SIDES.items())


def chart(found: JsonObject, sign: Sign, layer: Layer) -> JsonObject:
    """The option of an ECharts scatter of squares, with thresholds drawn and silenced tokens marked."""
    plane = found[sign]
    p_axis, h_axis = found["p_decades"], found["entropy_decades"]
    shade = [[cell["p"], cell["entropy"], _amount(cell, layer), cell["count"]] for cell in plane["cells"]]
    masked = [[_inside(point["p"], p_axis), _inside(point["entropy"], h_axis)] for point in plane["masked"]]
    squares = {"type": "scatter", "name": "tokens", "symbol": "rect", "symbolSize": [10, 7], "data": shade}
    diamonds = {"type": "scatter", "name": "silenced", "symbol": "diamond", "symbolSize": 13, "data": masked}
    diamonds["itemStyle"] = {"color": "transparent", "borderColor": "#d6336c", "borderWidth": 2.5}
    return {
        "animation": False,
        "grid": {"left": 10, "right": 30, "top": 24, "bottom": 30},
        "xAxis": _axis("probability p", p_axis, gap=24),
        "yAxis": _axis("entropy H (nats)", h_axis, gap=48),
        "visualMap": {
            "show": False,
            "seriesIndex": 0,
            "dimension": 2,
            "min": 0,
            "max": max((amount for _, _, amount, _ in shade), default=0.0) or 1.0,
            "inRange": {"color": [_COLORS[sign]], "opacity": [0.16, 1.0]},
        },
        "series": [squares, *_thresholds(found), diamonds],
    }


def _amount(cell: JsonObject, layer: Layer) -> float:
    return math.log10(cell["count"]) if layer == "Density" else float(cell["grad_norm"])


def _thresholds(found: JsonObject) -> list[JsonObject]:
    """Lines at tau_p and at the least and greatest tau_h of the mini-batches."""
    (left, right), (low, high) = ([10.0**decade for decade in found[name]] for name in ("p_decades", "entropy_decades"))
    lines = [("tau_p", [[tau_p, low], [tau_p, high]]) for tau_p in found["tau_p"]]
    lines += [("tau_h", [[left, tau_h], [right, tau_h]]) for tau_h in found["tau_h"]]
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
