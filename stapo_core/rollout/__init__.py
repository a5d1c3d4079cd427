"""Draws responses from the policy. An engine knows tokens and weights; it knows no reward and no update."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from jaxtyping import Float, Int64
from torch import Tensor

from stapo_core.batch import Group, Prompt


@dataclass(frozen=True, slots=True)
class Limits:
    """Which tokens may be drawn, applied in this order after the temperature; the defaults rule nothing out."""

    top_k: int | None = None
    """Only so many of the likeliest, and what ties with the last of them."""
    top_p: float = 1.0
    """Only the likeliest that together reach this probability, at least one."""
    min_p: float = 0.0
    """Only those with at least this share of the likeliest one's probability."""

    def __post_init__(self) -> None:
        if (self.top_k is not None and self.top_k < 1) or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError(f"{self}: top_k counts from 1, top_p lies in (0, 1] and min_p in [0, 1]")


@dataclass(frozen=True, slots=True)
class Draw:
    """What makes a draw repeatable: every response's random numbers follow from these and its own place alone."""

    seed: int
    step: int
    num_samples: int
    temperature: float
    limits: Limits = Limits()
    """For evaluation; a policy is trained on what it draws without limits."""
    stop: tuple[str, ...] = ()
    """Strings that end a response; its text is cut before them, its tokens go on to the one that completed them."""
    max_tokens: int | None = None
    """Cuts responses earlier than the sampler does, for a look at the engine: no stop breaks it off, nobody is told."""

    def response_seed(self, prompt_index: int, sample_index: int) -> int:
        """A 128-bit seed for one response: a hash, so that no response depends on its neighbours."""
        text = f"{self.seed}/{self.step}/{prompt_index}/{sample_index}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:16], "big")

    def response_seeds(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The seeds of all responses, by the place of their prompt.

        A prompt that comes twice goes on with its sample numbers, so that no draw repeats.
        """
        times: Counter[int] = Counter()
        seeds = []
        for prompt in prompts:
            first = times[prompt.index] * self.num_samples
            times[prompt.index] += 1
            samples = range(first, first + self.num_samples)
            seeds.append([self.response_seed(prompt.index, sample) for sample in samples])
        return seeds


class Watcher(Protocol):
    """Looks on while tokens are drawn."""

    def __call__(self, responses: Sequence[int], token_ids: Int64[Tensor, " n"], logits: Float[Tensor, "n V"]) -> None:
        """One token of each of `responses` (their places among all that are drawn) and what it was drawn from."""
        ...


class Sampler(Protocol):
    """An engine that draws responses: sample, load, sleep and wake, close."""

    def sample(self, prompts: Sequence[Prompt], draw: Draw) -> list[Group]:
        """Draws `draw.num_samples` responses to each prompt; groups come back in the order of the prompts."""
        ...

    def load(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Takes new weights (the items of the policy's state_dict); `version` counts the updates behind them."""
        ...

    def sleep(self) -> None:
        """Lends the device's memory to the learner, that of its weights too, until `wake` and `load`."""
        ...

    def wake(self) -> None:
        """Takes memory for weights again; `load` follows. An engine that is awake stays so."""
        ...

    def close(self) -> None:
        """Gives its memory back."""
        ...


class EngineUnusable(Exception):
    """The engine cannot draw from this model on this machine; the message says why and what to do."""


class Mismatch(Exception):
    """What the engine draws is not the policy's: they differ in their log-probs, and the message says by how much."""


class Stopped(Exception):
    """The run was asked to stop while it was sampling; what was drawn in this call is dropped."""

    reason: ClassVar[Literal["stopped", "grader_errors"]] = "stopped"
