"""Several runs side by side: overlaid curves, final figures, and where their settings differ. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dashboard import formats
from dashboard.charts import Kind

JsonObject = Mapping[str, Any]
Columns = dict[str, list[Any]]
Axis = Literal["Step", "Time", "Tokens"]
AXES: tuple[Axis, ...] = ("Step", "Time", "Tokens")
_UNITS: dict[Axis, str] = {"Step": "step", "Time": "minutes", "Tokens": "million tokens"}
_STROKES = ("solid", "dashed", "dotted", [8, 3, 2, 3], [4, 2], [1, 4])  # a second cue beside the colour


@dataclass(frozen=True)
class Figure:
    """One quantity to compare; `best` tells which end of it is wanted, if either."""

    key: str
    title: str
    kind: Kind = "train"
    is_log: bool = False


FIGURES = (
    Figure("reward/mean", "Reward"),
    Figure("eval/reward_mean", "Validation reward", kind="evaluation"),
    Figure("policy/entropy", "Entropy (nats per token)"),
    Figure("mask/ppm", "Mask rate (ppm, log axis; 0 is not drawn)", is_log=True),
    Figure("response/length_mean", "Response length (tokens)"),
    Figure("policy/grad_norm", "Gradient norm"),
)
KEYS = [*(figure.key for figure in FIGURES), "tokens/total"]


@dataclass(frozen=True)
class RunCurves:
    """A run's name in legends and its metric rows as the wire has them, ascending."""

    name: str
    rows: Sequence[JsonObject]

    def points(self, figure: Figure, axis: Axis) -> list[tuple[float, float]]:
        """Position on the axis and value of every row that has the figure."""
        rows = [row for row in self.rows if row["kind"] == figure.kind and row["values"].get(figure.key) is not None]
        position = self._positions(axis)
        return [(position(row), float(row["values"][figure.key])) for row in rows]

    def _positions(self, axis: Axis) -> Callable[[JsonObject], float]:
        if axis == "Step":
            return lambda row: float(row["step"])
        if axis == "Time":
            return lambda row: (float(row["created_at"]) - float(self.rows[0]["created_at"])) / 60
        tokens, seen = 0.0, dict[int, float]()
        for row in sorted(self.rows, key=lambda row: int(row["step"])):
            tokens = max(tokens, float(row["values"].get("tokens/total") or 0.0))
            seen[row["step"]] = tokens
        return lambda row: seen[row["step"]] / 1e6


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average without the pull towards zero at the start; `weight` in [0, 1) is kept per point."""
    out, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
        out.append(total / norm)
    return out


def overlay(figure: Figure, runs: Sequence[RunCurves], axis: Axis, *, smoothing: float) -> JsonObject:
    """The option of an ECharts line chart with one line for each run.

    A logarithmic axis has no place for 0: there a line has a gap, and a run of zeros alone a note in the legend.
    """
    curves = [(run.name, run.points(figure, axis)) for run in runs]
    floor = _floor([value for _, points in curves for _, value in points]) if figure.is_log else -math.inf
    weight = smoothing if figure.kind == "train" else 0.0
    return {
        "animation": False,
        "grid": {"left": 12, "right": 16, "top": 12, "bottom": 36},
        "legend": {"bottom": 0, "type": "scroll", "itemWidth": 44},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "value", "name": _UNITS[axis], "nameLocation": "middle", "nameGap": 24},
        "yAxis": {"type": "log" if figure.is_log else "value", "scale": True}
        | ({"min": floor} if figure.is_log else {}),
        "dataZoom": [{"type": "inside"}],
        "series": [
            {
                **_line(name, points, floor, weight),
                "showSymbol": figure.kind == "evaluation" or figure.is_log,  # one value between gaps is seen too
                "lineStyle": {"type": _STROKES[place % len(_STROKES)], "width": 2},
            }
            for place, (name, points) in enumerate(curves)
        ],
    }


def _line(name: str, points: Sequence[tuple[float, float]], floor: float, weight: float) -> JsonObject:
    values = smoothed([value for _, value in points], weight)
    shown = [value if value >= floor else None for value in values]
    is_left_out = bool(values) and shown.count(None) == len(shown)
    return {
        "name": f"{name} (0 throughout)" if is_left_out else name,
        "type": "line",
        "symbolSize": 5,
        "data": [[x, value] for (x, _), value in zip(points, shown, strict=True)],
    }


def final_figures(jobs: Sequence[JsonObject], names: Sequence[str]) -> Columns:
    """One row per run: where it stands and its last figures."""
    latest = [job.get("latest") or {} for job in jobs]
    evaluation = [job.get("latest_evaluation") or {} for job in jobs]
    return {
        "Run": list(names),
        "State": [[formats.state_look(job["state"]).word] for job in jobs],
        "Algorithm": [formats.algorithm_of(job) for job in jobs],
        "Step": [formats.step_text(job) for job in jobs],
        "Validation": [values.get("eval/reward_mean") for values in evaluation],
        "Reward": [values.get("reward/mean") for values in latest],
        "Entropy": [values.get("policy/entropy") for values in latest],
        "Mask (ppm)": [values.get("mask/ppm") for values in latest],
        "Tokens": [job.get("trained_tokens") for job in jobs],
    }


def differences(jobs: Sequence[JsonObject], names: Sequence[str]) -> Columns:
    """Every setting in which the runs are not all alike, one column per run; no columns when all is alike."""
    flat = [_flattened(_settings(job)) for job in jobs]
    keys = [
        key for key in dict.fromkeys(key for each in flat for key in each) if len({each.get(key) for each in flat}) > 1
    ]
    if not keys:
        return {}
    return {
        "Setting": keys,
        **{name: [each.get(key, "–") for key in keys] for name, each in zip(names, flat, strict=True)},
    }


def _floor(values: Sequence[float]) -> float:
    """A decade below the least value above zero: the average of many zeros after it is as good as zero."""
    positive = [value for value in values if value > 0]
    return 10.0 ** (math.floor(math.log10(min(positive))) - 1) if positive else 0.1


def _settings(job: JsonObject) -> JsonObject:
    parts = ("model", "training_file", "validation_file", "seed")
    return {part: job.get(part) for part in parts} | dict(job.get("method", {}).get("reinforcement", {}))


def _flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = "–" if value is None else str(value)
    return flat
