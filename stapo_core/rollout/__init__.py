"""Draws responses from the policy. An engine knows tokens and weights; it knows no reward and no update."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from stapo_core.batch import Group, Prompt


@dataclass(frozen=True, slots=True)
class Draw:
    """What makes a draw repeatable: every response's random numbers follow from these and its own place alone."""

    seed: int
    step: int
    num_samples: int
    temperature: float

    def response_seed(self, prompt_index: int, sample_index: int) -> int:
        """A 128-bit seed for one response: a hash, so that no response depends on its neighbours."""
        text = f"{self.seed}/{self.step}/{prompt_index}/{sample_index}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:16], "big")


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
