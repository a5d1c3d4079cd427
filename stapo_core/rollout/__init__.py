"""Draws responses from the policy. An engine knows tokens and weights; it knows no reward and no update."""

from __future__ import annotations

import hashlib
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

    def response_seed(self, prompt_index: int, sample_index: int) -> int:
        """A 128-bit seed for one response: a hash, so that no response depends on its neighbours."""
        text = f"{self.seed}/{self.step}/{prompt_index}/{sample_index}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:16], "big")


class Watcher(Protocol):
    """Looks on while tokens are drawn."""

    def __call__(self, responses: Sequence[int], token_ids: Int64[Tensor, " n"], logits: Float[Tensor, "n V"]) -> None:
        """One token of each of `responses` (their places among all that are drawn) and what it was drawn from."""
        ...


class Sampler(Protocol):
    """An engine that draws responses: sample, load, close."""

    def sample(self, prompts: Sequence[Prompt], draw: Draw) -> list[Group]:
        """Draws `draw.num_samples` responses to each prompt; groups come back in the order of the prompts."""
        ...

    def load(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Takes new weights (the items of the policy's state_dict); `version` counts the updates behind them."""
        ...

    def close(self) -> None:
        """Gives its memory back."""
        ...


class Stopped(Exception):
    """The run was asked to stop while it was sampling; what was drawn in this call is dropped."""

    reason: ClassVar[Literal["stopped", "grader_errors"]] = "stopped"
