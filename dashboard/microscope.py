"""Recorded responses shaped for the eye: which steps there are, a response as columns, its siblings, a mask in words.

Pure: no Streamlit, no HTTP.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard import formats
from stapo_core.config import StapoConfig

JsonObject = Mapping[str, Any]

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


@dataclass(frozen=True)
class Thresholds:
    """What decides which tokens are silenced."""

    tau_p: float
    quantile: float
    scope: str


def recorded_steps(job: JsonObject) -> range:
    """The steps on record so far; between those recorded in full most tokens lack their figures."""
    return range(1, int(job.get("step") or 0) + 1) if train_config(job).get("record_rollouts_every") else range(0)


def full_steps(job: JsonObject) -> range:
    """The steps recorded in full so far, the figures of every token with them."""
    every = train_config(job).get("record_rollouts_every")
    return range(every, int(job.get("step") or 0) + 1, every) if every else range(0)


def nearest(steps: range, wanted: int) -> int:
    """The step that lies nearest to one that somebody pointed at; the earlier of two. There must be one."""
    place = math.ceil((wanted - steps.start) / steps.step - 0.5)
    return steps[min(max(place, 0), len(steps) - 1)]


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


def tau_p_choices(*own: float) -> list[float]:
    """Values of tau_p on a logarithmic grid, and those of `own` among them."""
    return sorted({*(float(f"{value:g}") for value in _TAU_P), *own})


def named_thresholds(job: JsonObject, query: Mapping[str, str]) -> Thresholds:
    """The thresholds that an address names; the run's own where it names none, or what cannot be."""
    own_tau_p, _, own_scope = own_thresholds(job)
    scope = query.get("scope", "") if query.get("scope") in SCOPES else own_scope
    tau_p, quantile = _share(query.get("tau_p")), _share(query.get("quantile"))
    return Thresholds(
        tau_p or own_tau_p, min(0.99, max(0.01, quantile)) if quantile else usual_quantile(job, scope), scope
    )


def thresholds_query(job: JsonObject, chosen: Thresholds) -> dict[str, str | None]:
    """What an address says of thresholds: only those that are not the usual ones."""
    own_tau_p, _, own_scope = own_thresholds(job)
    is_usual = chosen.quantile == usual_quantile(job, chosen.scope)
    return {
        "tau_p": None if chosen.tau_p == own_tau_p else f"{chosen.tau_p:g}",
        "quantile": None if is_usual else f"{chosen.quantile:g}",
        "scope": None if chosen.scope == own_scope else chosen.scope,
    }


def most_frequent(by_step: Mapping[int, JsonObject]) -> list[JsonObject]:
    """Each silenced token of several steps once, the most frequent first, where its gradient was the greatest.

    `count` is exact: it is taken from each step's own counts, not from its list of examples.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, JsonObject] = {}
    for step, found in by_step.items():
        for each in found["most_frequent"]:
            counts[each["token"]] += each["count"]
        for item in found["data"]:
            held = examples.get(item["token"])
            if held is None or (item["grad_norm"] or 0.0) > (held["grad_norm"] or 0.0):
                examples[item["token"]] = {**item, "step": step}
    return [
        {**examples[token], "count": count}
        for token, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        if token in examples
    ]


def _share(text: str | None) -> float | None:
    """A number between 0 and 1, None where the text is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0.0 < value < 1.0 else None


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
