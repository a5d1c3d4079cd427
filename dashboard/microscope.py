"""Recorded responses shaped for the eye: which steps there are, a response as columns, its siblings, a mask in words.

Pure: no Streamlit, no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dashboard import formats
from stapo_core.config import StapoConfig

JsonObject = dict[str, Any]

COLORS = {
    "Probability": "probability",
    "Entropy": "entropy",
    "Advantage": "advantage",
    "Ratio": "ratio",
    "Gradient norm": "gradient",
}
"""What a strip can be coloured by, and its name among the component's measures."""
SCOPES = {"candidates": "Candidates", "all_tokens": "All tokens"}
ORDERS: dict[str, Callable[[JsonObject], Any]] = {
    "silenced": lambda row: (-row["num_masked"], row["min_p"]),
    "rarest token": lambda row: row["min_p"],
    "lowest reward": lambda row: row["reward"],
    "highest reward": lambda row: -row["reward"],
    "longest": lambda row: -row["length"],
    "group": lambda row: row["place"],
}
_TAU_P = [factor * 10.0**power for power in range(-5, 0) for factor in (1, 2, 5)]
_COLUMNS = (
    "id",
    "text",
    "p",
    "logprob",
    "sampler_logprob",
    "entropy",
    "advantage",
    "ratio",
    "grad_norm",
    "weight",
    "clipped",
    "masked",
    "positive_advantage",
    "low_p",
    "low_h",
    "tau_p",
    "tau_h",
    "scored",
)


def recorded_steps(job: JsonObject) -> list[int]:
    """The steps whose responses the run has recorded so far."""
    every = train_config(job).get("record_rollouts_every") or 0
    return list(range(every, int(job.get("step") or 0) + 1, every)) if every else []


def nearest(steps: Sequence[int], wanted: int) -> int:
    """The recorded step that lies nearest to one that somebody pointed at; the earlier of two."""
    return min(steps, key=lambda step: (abs(step - wanted), step))


def train_config(job: JsonObject) -> JsonObject:
    """The resolved config of a job of the wire."""
    return dict(job.get("method", {}).get("reinforcement", {}).get("config") or {})


def strip(detail: JsonObject) -> JsonObject:
    """A response as the strip takes it: its tokens as columns."""
    tokens = {name: [token[name] for token in detail["tokens"]] for name in _COLUMNS}
    return {"rollout": detail["id"], "prompt": detail["prompt_text"], "tokens": tokens}


def siblings(rows: Sequence[JsonObject], chosen: JsonObject) -> list[JsonObject]:
    """The responses to the same prompt that stand with the chosen one in its group, in their order."""
    return [row for row in rows if row["prompt_index"] == chosen["prompt_index"] and _is_near(row, chosen, rows)]


def sibling_cards(rows: Sequence[JsonObject]) -> list[JsonObject]:
    """Responses to one prompt as cards."""
    return [_card(row, f"No. {row['sample_index'] + 1}", row["preview"]) for row in rows]


def response_cards(rows: Sequence[JsonObject], order: str) -> list[JsonObject]:
    """Responses of a step as cards that show the prompt too, in one of ORDERS."""
    ordered = sorted(rows, key=ORDERS[order])
    return [_card(row, f"Problem {row['prompt_index'] + 1}", f"{row['prompt']}{row['preview']}") for row in ordered]


def own_thresholds(job: JsonObject) -> tuple[float, float, str]:
    """tau_p, quantile and scope by which the run masks; the paper's where its algorithm has none."""
    algorithm = formats.algorithm_config(job)
    own = StapoConfig.model_validate(algorithm) if algorithm.get("kind") == "stapo" else StapoConfig()
    return own.tau_p, own.quantile, own.entropy_scope


def usual_quantile(job: JsonObject, scope: str) -> float:
    """The quantile that goes with a scope: the run's own, or the paper's for the scope that the run has not."""
    _, own, own_scope = own_thresholds(job)
    return own if scope == own_scope else StapoConfig.model_validate({"entropy_scope": scope}).quantile


def tau_p_choices(own: float) -> list[float]:
    """Values of tau_p on a logarithmic grid, the run's own among them."""
    return sorted({*(float(f"{value:g}") for value in _TAU_P), own})


def comparison_words(simulated: JsonObject) -> str:
    """`would silence 37 tokens instead of 12`."""
    then, now = simulated["simulated"]["num_masked"], simulated["actual"]["num_masked"]
    tokens = "token" if then == 1 else "tokens"
    if not simulated["entering"]["count"] and not simulated["leaving"]["count"]:
        return f"would silence the same {then:,} {tokens} as the run did"
    return f"would silence {then:,} {tokens} instead of {now:,}"


def threshold_words(simulated: JsonObject) -> str:
    """What tau_h came to: `tau_h = 0.0965 over 6,524 tokens`, or its range over the mini-batches."""
    parts = simulated["minibatches"]
    known = [part["tau_h"] for part in parts if part["tau_h"] is not None]
    if not known:
        return "no tau_h: there was no candidate"
    low, high = formats.number(min(known)), formats.number(max(known))
    population = sum(part["num_population"] for part in parts)
    tokens = "token" if population == 1 else "tokens"
    where = "" if len(parts) == 1 else f" in {len(parts)} mini-batches"
    return f"tau_h = {low if low == high else f'{low} to {high}'} over {population:,} {tokens}{where}"


def section(title: str, found: JsonObject, *, empty: str) -> JsonObject:
    """A list of tokens in context with its heading; `found` holds `count` and `data`."""
    left = found["count"] - len(found["data"])
    return {
        "title": f"{title} ({found['count']:,})",
        "items": found["data"],
        "empty": empty,
        "more": f"and {left:,} more" if left else None,
    }


def _card(row: JsonObject, title: str, text: str) -> JsonObject:
    shown = ("id", "reward", "advantage", "length", "num_masked", "finish")
    return {name: row[name] for name in shown} | {"title": title, "text": text}


def _is_near(row: JsonObject, chosen: JsonObject, rows: Sequence[JsonObject]) -> bool:
    """Whether no response to another prompt stands between the two: a prompt may be drawn twice in a step."""
    first, last = sorted((row["place"], chosen["place"]))
    between = [other for other in rows if first < other["place"] < last]
    return all(other["prompt_index"] == chosen["prompt_index"] for other in between)
