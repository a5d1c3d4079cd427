"""Which curves a run page shows and how curves are cut down to a table cell. Pure: no Streamlit, no HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["train", "evaluation"]


@dataclass(frozen=True)
class Series:
    """One curve: a metric key of the wire and its name in the legend."""

    key: str
    name: str
    kind: Kind = "train"


@dataclass(frozen=True)
class Panel:
    """One chart. `color` is the palette's index of its first series; `log` draws zero on the bottom line."""

    title: str
    series: list[Series]
    unit: str = ""
    scale: Literal["linear", "log"] = "linear"
    color: int = 0
    note: str = ""


@dataclass(frozen=True)
class Row:
    """Panels that answer one question, side by side."""

    title: str
    panels: list[Panel]
    dense: bool = field(default=True)


_MASKING = frozenset({"stapo", "entropy20", "full_mask", "random", "high_entropy", "negative"})
"""Algorithms that give some tokens no weight."""


def run_rows(algorithm: Mapping[str, Any]) -> list[Row]:
    """The panels of a run page for an algorithm's resolved config: a mask or a KL only where there is one."""
    masks = algorithm.get("kind", "stapo") in _MASKING
    has_reference = bool(algorithm.get("kl_coefficient"))
    return [
        Row("Learning", [_REWARD, _ENTROPY, *([_MASK] if masks else []), _LENGTH], dense=False),
        Row(
            "Stability",
            [_GRAD_NORM, _CLIP, _MISMATCH, *([_MASK_SHARE] if masks else []), *([_KL] if has_reference else [])],
        ),
        Row("Quadrants of tokens by probability and entropy", [_quadrants(*figure) for figure in _QUADRANT_FIGURES]),
        Row("Signal", [_GROUPS, _SPREAD, _TRUNCATED, _GRADER, *([_FUNNEL] if masks else [])]),
        Row("Speed", [_THROUGHPUT, _STEP_TIME, _MEMORY]),
    ]


def keys_of(rows: Iterable[Row]) -> list[str]:
    """Every metric key the rows draw, and the token count that the axis can show."""
    keys = [series.key for row in rows for panel in row.panels for series in panel.series]
    return list(dict.fromkeys([*keys, "tokens/total"]))


def sparkline(rows: Sequence[Mapping[str, Any]], key: str, *, max_points: int = 40) -> list[float]:
    """The values of `key` in metric rows of the wire, thinned to `max_points` of which the last is the newest."""
    values = [float(row["values"][key]) for row in rows if row["values"].get(key) is not None]
    if len(values) <= max_points:
        return values
    stride = (len(values) - 1) / (max_points - 1)
    return [values[round(index * stride)] for index in range(max_points)]


def _quadrants(title: str, sign: str, figure: str, unit: str) -> Panel:
    names = {"low_p_low_h": "p↓ H↓", "low_p_high_h": "p↓ H↑", "high_p_low_h": "p↑ H↓", "high_p_high_h": "p↑ H↑"}
    return Panel(
        title,
        [Series(f"quadrant/{cell}_{sign}/{figure}", name) for cell, name in names.items()],
        unit=unit,
        scale="log",
        color=1,
        note="Tokens by probability below or above tau_p and entropy below or above tau_h.",
    )


_QUADRANT_FIGURES = (
    ("Gradient norm, A > 0", "pos", "grad_norm", "mean"),
    ("Gradient norm, A < 0", "neg", "grad_norm", "mean"),
    ("Tokens, A > 0", "pos", "count", ""),
    ("Tokens, A < 0", "neg", "count", ""),
)
_KL = Panel("KL to the base model", [Series("policy/kl", "k3")], unit="nats per token", color=2)
_REWARD = Panel(
    "Reward",
    [Series("reward/mean", "train"), Series("eval/reward_mean", "validation", "evaluation")],
    color=0,
    note="Mean reward of the sampled responses, and of the validation problems at each evaluation.",
)
_ENTROPY = Panel(
    "Entropy",
    [Series("policy/entropy", "policy")],
    unit="nats per token",
    color=2,
    note="Mean entropy of the policy over response tokens. It falls as the policy grows sure; near zero its answers no "
    "longer differ.",
)
_MASK = Panel(
    "Mask rate",
    [Series("mask/ppm", "masked")],
    unit="ppm",
    scale="log",
    color=1,
    note="Silenced tokens per million response tokens: positive advantage, low probability and low entropy at once.",
)
_LENGTH = Panel(
    "Response length",
    [Series("response/length_mean", "mean"), Series("response/length_max", "longest")],
    unit="tokens",
    color=3,
    note="Tokens per sampled response.",
)
_GRAD_NORM = Panel("Gradient norm", [Series("policy/grad_norm", "norm")], color=0, note="Before it is scaled down.")
_CLIP = Panel(
    "Clipped ratios",
    [Series("policy/clip_low", "low"), Series("policy/clip_high", "high")],
    unit="share of tokens",
    color=1,
    note="Tokens whose probability ratio left the trust region, by side.",
)
_MISMATCH = Panel(
    "Sampler mismatch",
    [Series("sampler/logp_diff_mean", "mean"), Series("sampler/logp_diff_max", "greatest")],
    unit="|Δ log p|",
    scale="log",
    color=4,
    note="How far the sampler's log-probabilities lie from the trainer's. Above 0.1 deserves a look.",
)
_MASK_SHARE = Panel(
    "Masked share of the gradient",
    [Series("mask/grad_share", "norm²"), Series("mask/entropy_change_share", "entropy change")],
    scale="log",
    color=1,
    note="What the silenced tokens would carry of the squared gradient norm and of the entropy change.",
)
_GROUPS = Panel(
    "Groups without signal",
    [
        Series("reward/groups_without_advantage", "all equal"),
        Series("reward/groups_all_zero", "all 0"),
        Series("reward/groups_all_one", "all 1"),
    ],
    unit="share",
    color=0,
    note="Groups whose responses all earned the same reward teach nothing: too hard (all 0), or too easy (all 1).",
)
_SPREAD = Panel(
    "Reward spread",
    [Series("reward/std", "std")],
    color=2,
    note="Standard deviation of the rewards of a step. Without spread there is no advantage.",
)
_FUNNEL = Panel(
    "Funnel to the mask",
    [
        Series("funnel/tokens", "tokens"),
        Series("funnel/positive_advantage", "A > 0"),
        Series("funnel/low_p", "low p"),
        Series("funnel/low_p_low_h", "low p, low H"),
    ],
    scale="log",
    color=0,
    note="Response tokens of a step; those with positive advantage; improbable ones; sure ones among these.",
)
_TRUNCATED = Panel(
    "Truncated responses",
    [Series("response/truncated", "truncated")],
    unit="share",
    color=1,
    note="Responses that were cut at the token limit.",
)
_GRADER = Panel(
    "Grader",
    [Series("grader/error_share", "errors (share)"), Series("speed/grade_s", "time of a step (s)")],
    color=4,
    note="Responses that could not be judged, and how long a step waits for its verdicts.",
)
_THROUGHPUT = Panel("Throughput", [Series("speed/tokens_per_s", "tokens")], unit="tokens/s", color=2)
_STEP_TIME = Panel(
    "Time of a step",
    [
        Series("speed/step_s", "step"),
        Series("speed/sample_s", "sample"),
        Series("speed/learn_s", "learn"),
        Series("speed/grade_s", "grade"),
    ],
    unit="s",
    color=0,
)
_MEMORY = Panel("Memory of the trainer", [Series("memory/rss_mb", "resident")], unit="MB", color=3)
