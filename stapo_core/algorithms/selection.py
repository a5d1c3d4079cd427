"""Which tokens count, and how much. A selection sees one mini-batch of flat tokens and a memory of earlier ones.

It never sees the network: all that it reads is detached, so a weight carries no gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
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
    tau_p: float | None = None
    """The threshold that a controller has steered to; None before the first mini-batch."""
    num_minibatches: int = 0
    """Mini-batches seen so far."""


@dataclass(frozen=True, slots=True)
class Selected:
    """The weight of each token (0 is silenced), and what is worth reporting about how it came about."""

    weights: Float32[Tensor, " N"]
    tau_p: float | None = None
    tau_h: float | None = None
    is_inert: bool = False
    """The population was too small for its quantile to silence anything."""
    sign: Literal[1, -1] = 1
    """Of the advantages among which it silences."""
    memory: Memory = field(default_factory=Memory)


class Selection(Protocol):
    """Chooses tokens."""

    @property
    def needs_all_entropies(self) -> bool:
        """Whether it reads entropies of tokens without an advantage: then groups without one are scored too."""

    @property
    def needs_whole_batch(self) -> bool:
        """Whether it leaves every token undecided until the whole mini-batch has been scored."""

    def undecided(self, tokens: Tokens, memory: Memory) -> Bool[Tensor, " N"]:
        """Tokens whose weight hangs on the whole mini-batch; `select` on any part is right for the others."""
        ...

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Weighs the tokens of a whole mini-batch."""
        ...


class _EachAlone:
    """A selection that decides each token by what is known of that token alone."""

    needs_all_entropies = False
    needs_whole_batch = False

    def undecided(self, tokens: Tokens, memory: Memory) -> Bool[Tensor, " N"]:
        """None."""
        return torch.zeros_like(tokens.advantages, dtype=torch.bool)


class AllTokens(_EachAlone):
    """Every token counts 1."""

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Ones."""
        return Selected(torch.ones_like(tokens.advantages), memory=memory)


@dataclass(frozen=True, slots=True)
class SilenceSpurious:
    """S2T (arXiv 2602.15620): weight 0 iff sign A > 0 and p < tau_p and H < tau_h, all strict.

    tau_h is a quantile of H over the mini-batch: over its candidates (sign A > 0 and p < tau_p) and those of the
    `window - 1` mini-batches before it, or over all its tokens. `sign` -1 is the mirror image on bad responses.
    """

    tau_p: float
    quantile: float
    scope: Literal["candidates", "all_tokens"] = "candidates"
    window: int = 1
    sign: Literal[1, -1] = 1
    needs_whole_batch: bool = False

    @property
    def needs_all_entropies(self) -> bool:
        """The scope all_tokens takes its quantile over every response token."""
        return self.scope == "all_tokens"

    def undecided(self, tokens: Tokens, memory: Memory) -> Bool[Tensor, " N"]:
        """The candidates: every other token counts 1 whatever the threshold is."""
        return candidates(tokens, memory.tau_p or self.tau_p, self.sign)

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Silences the candidates whose entropy lies below the threshold."""
        chosen = self.undecided(tokens, memory)
        kept = remember(memory, tokens.entropies[chosen], self.window)
        population = tokens.entropies if self.scope == "all_tokens" else torch.cat(kept.entropies)
        tau_h = quantile(population, self.quantile)
        silenced = chosen & (tokens.entropies < (-math.inf if tau_h is None else tau_h))
        return Selected(
            weights=(~silenced).float(),
            tau_p=memory.tau_p or self.tau_p,
            tau_h=tau_h,
            is_inert=len(population) < 2,
            sign=self.sign,
            memory=kept,
        )


@dataclass(frozen=True, slots=True)
class SteerTauP:
    """S2T whose tau_p is steered so that `target_ppm` of the tokens are silenced.

    After each mini-batch ln tau_p moves by `gain` times the relative error, which is cut to [-1, 1]: a fast mask
    cannot run away on one odd mini-batch.
    """

    inner: SilenceSpurious
    target_ppm: float
    gain: float = 0.1
    lowest: float = 1e-6
    highest: float = 0.5

    @property
    def needs_all_entropies(self) -> bool:
        """As S2T."""
        return self.inner.needs_all_entropies

    @property
    def needs_whole_batch(self) -> bool:
        """As S2T."""
        return self.inner.needs_whole_batch

    def undecided(self, tokens: Tokens, memory: Memory) -> Bool[Tensor, " N"]:
        """As S2T, at the steered threshold."""
        return self.inner.undecided(tokens, memory)

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """As S2T; the memory that it gives back holds the next threshold."""
        selected = self.inner.select(tokens, memory)
        ppm = 1e6 * (selected.weights == 0).float().mean().item()
        error = min(1.0, max(-1.0, (self.target_ppm - ppm) / self.target_ppm))
        tau_p = (memory.tau_p or self.inner.tau_p) * math.exp(self.gain * error)
        steered = min(self.highest, max(self.lowest, tau_p))
        return replace(selected, memory=replace(selected.memory, tau_p=steered))


@dataclass(frozen=True, slots=True)
class SilenceRare(_EachAlone):
    """An ablation: every candidate is silenced, as by S2T with tau_h infinite."""

    tau_p: float

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Silences all tokens with A > 0 and p < tau_p."""
        silenced = candidates(tokens, self.tau_p)
        return Selected((~silenced).float(), tau_p=self.tau_p, tau_h=math.inf, memory=memory)


@dataclass(frozen=True, slots=True)
class SilenceAtRandom:
    """An ablation: a share of the candidates is silenced, chosen at random; which ones follows from the count."""

    tau_p: float
    share: float
    seed: int
    needs_all_entropies: bool = False
    needs_whole_batch: bool = False

    def undecided(self, tokens: Tokens, memory: Memory) -> Bool[Tensor, " N"]:
        """The candidates."""
        return candidates(tokens, self.tau_p)

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Silences floor(share x candidates) of them."""
        places = self.undecided(tokens, memory).nonzero().squeeze(1)
        generator = torch.Generator().manual_seed((self.seed + 1_000_003 * memory.num_minibatches) % 2**63)
        order = torch.randperm(len(places), generator=generator).to(places.device)
        weights = torch.ones_like(tokens.advantages)
        weights[places[order[: int(self.share * len(places))]]] = 0.0
        kept = replace(memory, num_minibatches=memory.num_minibatches + 1)
        return Selected(weights, tau_p=self.tau_p, is_inert=len(places) < 2, memory=kept)


@dataclass(frozen=True, slots=True)
class SilenceUncertain:
    """An ablation: the candidates of highest entropy are silenced, those strictly above the 1 - share quantile."""

    tau_p: float
    share: float
    needs_all_entropies: bool = False
    needs_whole_batch: bool = False

    def undecided(self, tokens: Tokens, memory: Memory) -> Bool[Tensor, " N"]:
        """The candidates."""
        return candidates(tokens, self.tau_p)

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Silences the candidates whose entropy lies above the threshold."""
        chosen = self.undecided(tokens, memory)
        population = tokens.entropies[chosen]
        tau_h = quantile(population, 1.0 - self.share)
        silenced = chosen & (tokens.entropies > (math.inf if tau_h is None else tau_h))
        return Selected((~silenced).float(), tau_p=self.tau_p, tau_h=tau_h, is_inert=len(population) < 2, memory=memory)


@dataclass(frozen=True, slots=True)
class KeepUncertain:
    """20-Entropy (arXiv 2506.01939): only tokens with H at or above the 1 - share quantile of all tokens count."""

    share: float
    needs_all_entropies: bool = True
    needs_whole_batch: bool = True

    def undecided(self, tokens: Tokens, memory: Memory) -> Bool[Tensor, " N"]:
        """All: the threshold is a quantile over every token."""
        return torch.ones_like(tokens.advantages, dtype=torch.bool)

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Keeps the tokens of highest entropy."""
        tau_h = quantile(tokens.entropies, 1.0 - self.share)
        kept = tokens.entropies >= (-math.inf if tau_h is None else tau_h)
        return Selected(kept.float(), tau_h=tau_h, memory=memory)


@dataclass(frozen=True, slots=True)
class SoftenSurprising(_EachAlone):
    """TACO (arXiv 2607.07976): s = -ln p - H + ln alpha; where A > 0 and s > 0 the weight is 1 - l (1 - e^-s)."""

    alpha: float
    strength: float

    def select(self, tokens: Tokens, memory: Memory) -> Selected:
        """Lowers the weight of surprising tokens of good responses."""
        surprise = -tokens.logprobs - tokens.entropies + math.log(self.alpha)
        is_lowered = (tokens.advantages > 0) & (surprise > 0)
        lowered = 1.0 - self.strength * (1.0 - (-surprise).exp())
        return Selected(torch.where(is_lowered, lowered, 1.0), memory=memory)


def candidates(tokens: Tokens, tau_p: float, sign: Literal[1, -1] = 1) -> Bool[Tensor, " N"]:
    """Tokens with sign A > 0 and p < tau_p, both strict."""
    return (sign * tokens.advantages > 0) & (tokens.logprobs.exp() < tau_p)


def remember(memory: Memory, entropies: Float32[Tensor, " K"], window: int) -> Memory:
    """The memory with one more mini-batch's candidates, cut to the latest `window`."""
    return replace(
        memory,
        entropies=(*(past.to(entropies.device) for past in memory.entropies), entropies)[-window:],
        num_minibatches=memory.num_minibatches + 1,
    )


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
