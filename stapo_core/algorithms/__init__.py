"""Every algorithm is an advantage, a selection, a surrogate and an aggregation; the dict below is the registry.

Pure functions over flat tokens: this room knows no network, no sampler and no micro-batch. To add an algorithm,
give it a config class in `stapo_core.config` and a line in `_COMPOSERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from stapo_core.algorithms import advantage
from stapo_core.algorithms.aggregation import Aggregation, SequenceMean, SurvivingMean
from stapo_core.algorithms.selection import AllTokens, Memory, Selected, Selection, SilenceSpurious
from stapo_core.algorithms.surrogate import Clipped, Objective, Surrogate, WithKl
from stapo_core.batch import Tokens
from stapo_core.config import Algorithm as AlgorithmConfig
from stapo_core.config import GrpoConfig, StapoConfig

__all__ = ["Algorithm", "Decision", "Memory", "Objective", "Selected", "compose", "decide", "push"]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A policy-optimisation method, composed."""

    advantage: Callable[[Float32[Tensor, "B G"]], Float32[Tensor, "B G"]]
    selection: Selection
    surrogate: Surrogate
    aggregation: Aggregation
    needs_reference: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What an algorithm makes of one mini-batch. The loss's slope is `-weights * scale * slopes / denominator`."""

    selected: Selected
    objective: Objective
    slopes: Float32[Tensor, " N"]
    """d objective / d log p of each token, before selection: r A, or 0 where the clip is active."""
    scale: Float32[Tensor, " N"]
    denominator: float

    @property
    def loss(self) -> float:
        """The loss of the mini-batch; 0 when everything is silenced."""
        if self.denominator == 0.0:
            return 0.0
        total = (self.selected.weights * self.scale * self.objective.values).sum(dtype=torch.float64)
        return -total.item() / self.denominator

    @property
    def push(self) -> Float32[Tensor, " N"]:
        """d(denominator x loss) / d log p of each token: what the network's backward pass starts from."""
        return -self.selected.weights * self.scale * self.slopes


def decide(algorithm: Algorithm, tokens: Tokens, memory: Memory) -> Decision:
    """Applies the algorithm to one whole mini-batch."""
    selected = algorithm.selection.select(tokens, memory)
    objective, slopes = _slopes(algorithm.surrogate, tokens)
    return Decision(
        selected=selected,
        objective=objective,
        slopes=slopes,
        scale=algorithm.aggregation.scale(tokens),
        denominator=algorithm.aggregation.denominator(tokens, selected.weights),
    )


def push(algorithm: Algorithm, tokens: Tokens, memory: Memory) -> Float32[Tensor, " N"]:
    """What a part of the mini-batch can be pushed by before the rest is seen: 0 where that is still undecided."""
    weights = algorithm.selection.select(tokens, memory).weights
    weights = weights.masked_fill(algorithm.selection.undecided(tokens), 0.0)
    _, slopes = _slopes(algorithm.surrogate, tokens)
    return -weights * algorithm.aggregation.scale(tokens) * slopes


def _slopes(surrogate: Surrogate, tokens: Tokens) -> tuple[Objective, Float32[Tensor, " N"]]:
    leaf = tokens.logprobs.detach().clone().requires_grad_()
    with torch.enable_grad():
        objective = surrogate(leaf, tokens)
    (slopes,) = torch.autograd.grad(objective.values.sum(), leaf)
    return Objective(objective.values.detach(), objective.clipped_low, objective.clipped_high), slopes


def _stapo(config: StapoConfig) -> Algorithm:
    selection = SilenceSpurious(
        tau_p=config.tau_p, quantile=config.quantile, scope=config.entropy_scope, window=config.entropy_window
    )
    return Algorithm(advantage.normalized, selection, Clipped(config.clip_low, config.clip_high), SurvivingMean())


def _grpo(config: GrpoConfig) -> Algorithm:
    surrogate: Surrogate = Clipped(config.clip_low, config.clip_high)
    if config.kl_coefficient > 0:
        surrogate = WithKl(surrogate, config.kl_coefficient)
    needs_reference = config.kl_coefficient > 0
    return Algorithm(advantage.normalized, AllTokens(), surrogate, SequenceMean(), needs_reference)


_COMPOSERS: dict[str, Callable[[Any], Algorithm]] = {
    "stapo": _stapo,
    "grpo": _grpo,
}


def compose(config: AlgorithmConfig) -> Algorithm:
    """The algorithm that a config names."""
    return _COMPOSERS[config.kind](config)
