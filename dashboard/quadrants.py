"""Tokens by probability and entropy on logarithmic axes: a plane of the wire shaped into a chart. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from dashboard import formats

JsonObject = Mapping[str, Any]
Layer = Literal["Density", "Gradient norm"]
Sign = Literal["positive", "negative"]
LAYERS: tuple[Layer, ...] = ("Density", "Gradient norm")
_COLORS: dict[Sign, str] = {"positive": "47, 143, 208", "negative": "224, 117, 45"}
_INK = "#8a94a3"
_DIMENSIONS = ("p", "entropy", "shade", "tokens", "mean gradient norm")
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
    shade = [
        [_short(cell["p"]), _short(cell["entropy"]), _amount(cell, layer), cell["count"], _short(cell["grad_norm"])]
        for cell in plane["cells"]
    ]
    top = max((amount for _, _, amount, *_ in shade), default=0.0) or 1.0
    masked = [[_inside(point["p"], p_axis), _inside(point["entropy"], h_axis)] for point in plane["masked"]]
    squares: dict[str, Any] = {
        "type": "scatter",
        "name": "tokens",
        "symbol": "rect",
        "symbolSize": [10, 7],
        "data": shade,
    }
    squares |= {"dimensions": list(_DIMENSIONS), "encode": {"x": 0, "y": 1, "tooltip": [0, 1, 3, 4]}}
    diamonds = {"type": "scatter", "name": "silenced", "symbol": "diamond", "symbolSize": 13, "data": masked}
    diamonds["itemStyle"] = {"color": "transparent", "borderColor": "#d6336c", "borderWidth": 2.5}
    return {
        "animation": False,
        "grid": {"left": 10, "right": 30, "top": 40, "bottom": 4},
        "tooltip": {"trigger": "item"},
        "xAxis": _axis("probability p", p_axis, gap=24),
        "yAxis": _axis("entropy H (nats)", h_axis, gap=48),
        "visualMap": {
            "show": True,
            "orient": "horizontal",
            "top": 0,
            "right": 24,
            "itemWidth": 10,
            "itemHeight": 110,
            "text": _ends(top, layer),
            "seriesIndex": 0,
            "dimension": 2,
            "min": 0,
            "max": top,
            "inRange": {"color": [f"rgba({_COLORS[sign]}, 0.16)", f"rgba({_COLORS[sign]}, 1)"]},
            "inactiveColor": "rgba(0, 0, 0, 0)",  # what lies under the scale
            "hoverLink": False,
        },
        "series": [squares, *_thresholds(found), diamonds],
    }


def _amount(cell: JsonObject, layer: Layer) -> float:
    return math.log10(cell["count"]) if layer == "Density" else float(cell["grad_norm"])


def _ends(top: float, layer: Layer) -> list[str]:
    """What the strongest and the palest shade stand for."""
    if layer == "Density":
        return [f"{10**top:,.0f} tokens", "1"]
    return [f"gradient norm {formats.number(top)}", "0"]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _thresholds(found: JsonObject) -> list[JsonObject]:
    """Lines at tau_p and at the least and greatest tau_h of the mini-batches."""
    (left, right), (low, high) = ([10.0**decade for decade in found[name]] for name in ("p_decades", "entropy_decades"))
    lines = [("tau_p", [[tau_p, low], [tau_p, high]]) for tau_p in found["tau_p"]]
    lines += [
        ("tau_h", [[right, tau_h], [left, tau_h]]) for tau_h in found["tau_h"]
    ]  # to the left, where few tokens are
    return [
        {
            "type": "line",
            "name": name,
            "data": points,
            "symbol": "none",
            "silent": True,
            "lineStyle": {"color": _INK, "type": "dashed", "width": 1.5},
            "endLabel": {"show": True, "formatter": name, "color": _INK, "offset": [0, -8]},
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
