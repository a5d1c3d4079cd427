"""Draws learning curves as SVG that reads in light and in dark. Knows points alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 110, 40, 46
_COLORS = ("#2f6fde", "#d9822b", "#2a9d6f", "#b04fbf")
_INK = "#7a8290"  # legible on white and on black

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curve:
    """A line through `points`, each (step, value in [0, 1]), and marks where held-out problems were scored."""

    name: str
    points: Points
    marks: Points = ()


def draw_curves(curves: Sequence[Curve], *, title: str, unit: str) -> str:
    """One drawing with a legend; values run from 0 to 1."""
    last = max(step for curve in curves for step, _ in (*curve.points, *curve.marks))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        step, value = point
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / last
        return round(across, 1), round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="{_INK}" role="img"><title>{escape(title)}</title>',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}: {escape(unit)}</text>',
    ]
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        _, y = place((0, value))
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}" stroke="{_INK}" opacity="0.25"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{value:.0%}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place((share * last, 0.0))
        parts.append(f'<text x="{x}" y="{y + 20}" text-anchor="middle">{share * last:.0f}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">step</text>')
    for number, curve in enumerate(curves):
        color = _COLORS[number % len(_COLORS)]
        line = " ".join(f"{x},{y}" for x, y in map(place, curve.points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.5" opacity="0.8"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="4" fill="{color}"/>' for x, y in map(place, curve.marks)]
        y = _TOP + 18 * number + 10
        parts.append(f'<circle cx="{_WIDTH - _RIGHT + 16}" cy="{y - 4}" r="4" fill="{color}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 26}" y="{y}">{escape(curve.name)}</text>')
    y = _TOP + 18 * len(curves) + 16
    parts.append(f'<text x="{_WIDTH - _RIGHT + 10}" y="{y}" font-size="10">line: training</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT + 10}" y="{y + 14}" font-size="10">dots: held out</text></svg>')
    return "\n".join(parts) + "\n"
