"""Answers of several models to one prompt, shaped for side by side. Pure: no Streamlit, no HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard import formats

JsonObject = Mapping[str, Any]
ALTERNATIVES = 5
MAX_MODELS = 4


@dataclass(frozen=True)
class Question:
    """A prompt and how answers to it are drawn."""

    prompt: str
    temperature: float
    max_tokens: int
    num_answers: int
    seed: int
    wants_probabilities: bool

    def body(self, model: str) -> dict[str, Any]:
        """The request for one model."""
        asked: dict[str, Any] = {
            "model": model,
            "prompt": self.prompt,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "n": self.num_answers,
            "seed": self.seed,
        }
        return asked | ({"logprobs": ALTERNATIVES} if self.wants_probabilities else {})


def model_names(
    models: Sequence[JsonObject], job: JsonObject | None, saved: Sequence[JsonObject], named: Sequence[str]
) -> dict[str, str]:
    """What can be asked, by the name that the API knows it by, with a name for people; what is named comes along."""
    names = {model["id"]: model["id"] for model in models}
    run = formats.run_name(job) if job else ""
    for checkpoint in saved:
        final = ", final" if checkpoint["final"] else ""
        names[checkpoint["fine_tuned_model_checkpoint"]] = f"{run} · step {checkpoint['step_number']:,}{final}"
    return names | {name: name for name in named if name not in names}


def usual_models(names: Mapping[str, str], job: JsonObject | None, saved: Sequence[JsonObject]) -> list[str]:
    """The base model of a run beside its newest checkpoint; the first model where there is no run."""
    if job is None:
        return list(names)[:1]
    newest = [saved[0]["fine_tuned_model_checkpoint"]] if saved else []
    return [name for name in [job["model"], *newest] if name in names]


def answer(choice: JsonObject) -> JsonObject:
    """One answer as the component takes it: its text, and where probabilities were asked for, its tokens as columns."""
    told = choice.get("logprobs")
    if not told:
        return {"text": choice["text"], "finish": choice["finish_reason"], "tokens": None}
    return {
        "text": choice["text"],
        "finish": choice["finish_reason"],
        "tokens": {
            "text": told["tokens"],
            "p": [math.exp(value) for value in told["token_logprobs"]],
            "likely": [
                [[token, math.exp(value)] for token, value in sorted(top.items(), key=lambda pair: -pair[1])]
                for top in told["top_logprobs"]
            ],
        },
    }


def words(choice: JsonObject) -> str:
    """`12 tokens · mean p 0.81`, or how the answer ended where no probabilities were asked for."""
    cut = "cut at the limit" if choice["finish_reason"] == "length" else "ended by itself"
    told = choice.get("logprobs")
    if not told or not told["token_logprobs"]:
        return cut
    logprobs = told["token_logprobs"]
    mean = math.exp(math.fsum(logprobs) / len(logprobs))
    return f"{len(logprobs):,} tokens · {formats.number(mean)} per token (geometric mean) · {cut}"
