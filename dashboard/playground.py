"""Answers of several models to one prompt, whole or growing, shaped for side by side. Pure: no Streamlit, no HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard import formats

JsonObject = Mapping[str, Any]
ALTERNATIVES = 5
MAX_MODELS = 4
_CURSOR = "▍"
_COLUMNS = ("text_offset", "token_logprobs", "tokens", "top_logprobs")


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

    def blank(self) -> list[JsonObject]:
        """The answers before their first piece."""
        return [
            {
                "index": index,
                "text": "",
                "finish_reason": None,
                "logprobs": {name: [] for name in _COLUMNS} if self.wants_probabilities else None,
            }
            for index in range(self.num_answers)
        ]


def grown(choice: JsonObject, piece: JsonObject) -> JsonObject:
    """An answer and the next piece of its stream; with the last one it is what the whole answer would have been."""
    told, more = choice["logprobs"], piece["logprobs"]
    return {
        **choice,
        "text": choice["text"] + piece["text"],
        "finish_reason": piece["finish_reason"],
        "logprobs": {name: told[name] + more[name] for name in _COLUMNS} if more else told,
    }


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


def answer(choice: JsonObject, *, is_growing: bool) -> JsonObject:
    """One answer as the component takes it: its text, and where probabilities were asked for, its tokens as columns.

    What else was likely comes once nothing more is drawn: it is most of the bytes, and is read at rest.
    """
    told = choice["logprobs"]
    columns = told and {
        "text": told["tokens"],
        "p": [math.exp(value) for value in told["token_logprobs"]],
        "likely": [] if is_growing else [_likely(top) for top in told["top_logprobs"]],
    }
    return {"text": choice["text"], "tail": _CURSOR if is_growing else "", "tokens": columns}


def words(choice: JsonObject, *, is_growing: bool) -> str:
    """`12 tokens · mean token probability 0.81`, where probabilities were asked for, and how the answer ended."""
    if is_growing:
        return "being drawn"
    stopped = "stopped before its end" if choice["text"] else "stopped before it began"
    end = {"length": "cut at the limit", "stop": "finished", None: stopped}[choice["finish_reason"]]
    told = choice["logprobs"]
    if not told or not told["token_logprobs"]:
        return end
    logprobs = told["token_logprobs"]
    mean = math.exp(math.fsum(logprobs) / len(logprobs))
    count = f"{len(logprobs):,} token{'s' if len(logprobs) > 1 else ''}"
    return f"{count} · mean token probability {formats.number(mean)} · {end}"


def _likely(top: Mapping[str, float]) -> list[list[Any]]:
    """Tokens with their probabilities, the likeliest first."""
    return [[token, math.exp(value)] for token, value in sorted(top.items(), key=lambda pair: -pair[1])]
