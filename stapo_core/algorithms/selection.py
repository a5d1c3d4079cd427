"""Which tokens count, and how much. A selection sees one mini-batch of flat tokens and a memory of earlier ones.

It never sees the network: all that it reads is detached, so a weight carries no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from stapo_core.batch import Tokens


@dataclass(frozen=True, slots=True)
class Memory:
    """What a selection keeps from one mini-batch to the next; part of a checkpoint."""

    entropies: tuple[Float32[Tensor, " K"], ...] = ()
    """Entropies of the candidates of the latest mini-batches, oldest first."""


@dataclass(frozen=True, slots=True)
class Selected:
    """The weight of each token (0 is silenced), and what is worth reporting about how it came about."""

    weights: Float32[Tensor, " N"]
    candidates: Bool[Tensor, " N"]
    tau_h: float | None = None
    is_inert: bool = False
    """The population was too small for its quantile to silence anything."""
    memory: Memory = field(default_factory=Memory)


class Selection(Protocol):
    """Chooses tokens."""

    @property
    def tau_p(self) -> float | None:
        """The probability below which it looks at a token; None when it looks at no probability."""

    @property
    def needs_all_entropies(self) -> bool:
        """Whether it reads entropies of tokens without an advantage: then groups without one are scored too."""

    @property
    def needs_whole_batch(self) -> bool:
        """Whether it leaves every token undecided until the whole mini-batch has been scored."""

    def undecided(self, tokens: Tokens) -> Bool[Tensor, " N"]:
        """Tokens whose weight hangs on the whole mini-batch; `select` on any part is right for the others."""
        ...

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Weighs the tokens of a whole mini-batch."""
        ...


@dataclass(frozen=True, slots=True)
class AllTokens:
    """Every token counts 1."""

    tau_p: float | None = None
    needs_all_entropies: bool = False
    needs_whole_batch: bool = False

    def undecided(self, tokens: Tokens) -> Bool[Tensor, " N"]:
        """None: the weight is 1 whatever the others are."""
        return torch.zeros_like(tokens.advantages, dtype=torch.bool)

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Ones."""
        return Selected(torch.ones_like(tokens.advantages), self.undecided(tokens), memory=memory)


@dataclass(frozen=True, slots=True)
class SilenceSpurious:
    """S2T (arXiv 2602.15620): weight 0 iff A > 0 and p < tau_p and H < tau_h, all strict.

    tau_h is a quantile of H over the mini-batch: over its candidates (A > 0 and p < tau_p) and those of the
    `window - 1` mini-batches before it, or over all its tokens.
    """

    tau_p: float | None
    quantile: float
    scope: Literal["candidates", "all_tokens"]
    window: int = 1
    needs_whole_batch: bool = False

    @property
    def needs_all_entropies(self) -> bool:
        """The scope all_tokens takes its quantile over every response token."""
        return self.scope == "all_tokens"

    def undecided(self, tokens: Tokens) -> Bool[Tensor, " N"]:
        """The candidates: every other token counts 1 whatever the threshold is."""
        return (tokens.advantages > 0) & is_rare(tokens, self.tau_p)

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Silences the candidates whose entropy lies below the threshold."""
        candidates = self.undecided(tokens)
        if self.scope == "all_tokens":
            population, kept = tokens.entropies, memory
        else:
            kept = remember(memory, tokens.entropies[candidates], self.window)
            population = torch.cat([past.to(tokens.entropies.device) for past in kept.entropies])
        tau_h = quantile(population, self.quantile)
        silenced = candidates & (tokens.entropies < (-torch.inf if tau_h is None else tau_h))
        return Selected(
            weights=(~silenced).float(),
            candidates=candidates,
            tau_h=tau_h,
            is_inert=len(population) < 2,
            memory=kept,
        )


def is_rare(tokens: Tokens, tau_p: float | None) -> Bool[Tensor, " N"]:
    """P < tau_p, strict; no token is rare without a tau_p."""
    if tau_p is None:
        return torch.zeros_like(tokens.logprobs, dtype=torch.bool)
    return tokens.logprobs.exp() < tau_p


def remember(memory: Memory, entropies: Float32[Tensor, " K"], window: int) -> Memory:
    """The memory with one more mini-batch's candidates, cut to the latest `window`."""
    return Memory((*memory.entropies, entropies)[-window:])


def quantile(values: Float32[Tensor, " K"], share: float) -> float | None:
    """The quantile by linear interpolation between neighbours, for any number of values; None for none.

    `torch.quantile` refuses more than 2^24 values, which a large mini-batch has.
    """
    if len(values) == 0:
        return None
    place = share * (len(values) - 1)
    below = min(int(place), len(values) - 1)
    lower = values.kthvalue(below + 1).values
    if below + 1 == len(values):
        return lower.item()
    upper = values.kthvalue(below + 2).values
    return torch.lerp(lower, upper, place - below).item()
