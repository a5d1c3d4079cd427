"""Every algorithm is an advantage, a selection, a surrogate and an aggregation; the dict below is the registry.

Pure functions over flat tokens: this room knows no network, no sampler and no micro-batch. To add an algorithm,
give it a config class in `stapo_core.config` and a line in `_COMPOSERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from stapo_core import config as settings
from stapo_core.algorithms import advantage, selection
from stapo_core.algorithms.aggregation import Aggregation, ConstantLength, SequenceMean, SurvivingMean, TokenMean
from stapo_core.algorithms.selection import Memory, Selected, Selection
from stapo_core.algorithms.surrogate import (
    Clipped,
    DualClipped,
    Objective,
    SequenceClipped,
    Surrogate,
    WeightClipped,
    WithImportance,
    WithKl,
)
from stapo_core.batch import Tokens

__all__ = ["Algorithm", "Decision", "Memory", "Objective", "Selected", "compose", "decide", "push", "thresholds"]


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
    """d objective / d log p of each token, before selection: for a clipped surrogate alone r A, or 0 where the clip is
    active; importance weights multiply that, and a KL term adds to it.
    """
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
    weights = weights.masked_fill(algorithm.selection.undecided(tokens, memory), 0.0)
    _, slopes = _slopes(algorithm.surrogate, tokens)
    return -weights * algorithm.aggregation.scale(tokens) * slopes


def thresholds(tokens: Tokens, selected: Selected) -> tuple[float, float | None]:
    """tau_p and tau_h that tell rare and certain tokens apart in diagnostics: the selection's own, else the paper's.

    So every algorithm shows the tokens that STAPO would have silenced.
    """
    tau_p = selected.tau_p or settings.StapoConfig().tau_p
    if selected.tau_p is not None or selected.tau_h is not None:
        return tau_p, selected.tau_h
    rare = selection.candidates(tokens, tau_p)
    return tau_p, selection.quantile(tokens.entropies[rare], settings.StapoConfig().quantile)


def _slopes(surrogate: Surrogate, tokens: Tokens) -> tuple[Objective, Float32[Tensor, " N"]]:
    leaf = tokens.logprobs.detach().clone().requires_grad_()
    with torch.enable_grad():
        objective = surrogate(leaf, tokens)
    (slopes,) = torch.autograd.grad(objective.values.sum(), leaf)
    return Objective(objective.values.detach(), objective.clipped_low, objective.clipped_high), slopes


def _stapo(config: settings.StapoConfig, _: settings.RunConfig) -> Algorithm:
    silence = selection.SilenceSpurious(config.tau_p, config.quantile, config.entropy_scope, config.entropy_window)
    if config.target_ppm is None:
        return _silenced(config, silence)
    return _silenced(config, selection.SteerTauP(silence, config.target_ppm))


def _grpo(config: settings.GrpoConfig, _: settings.RunConfig) -> Algorithm:
    return Algorithm(advantage.normalized, selection.AllTokens(), _clipped(config), SequenceMean())


def _justrl(config: settings.JustrlConfig, _: settings.RunConfig) -> Algorithm:
    surrogate = DualClipped(config.clip_low, config.clip_high, config.dual_clip)
    return Algorithm(advantage.normalized, selection.AllTokens(), surrogate, TokenMean())


def _entropy20(config: settings.Entropy20Config, _: settings.RunConfig) -> Algorithm:
    return _silenced(config, selection.KeepUncertain(config.kept_share))


def _dapo(config: settings.DapoConfig, _: settings.RunConfig) -> Algorithm:
    return Algorithm(advantage.normalized, selection.AllTokens(), _clipped(config), TokenMean())


def _dr_grpo(config: settings.DrGrpoConfig, run: settings.RunConfig) -> Algorithm:
    aggregation = ConstantLength(run.train.sampling.max_response_tokens)
    return Algorithm(advantage.centred, selection.AllTokens(), _clipped(config), aggregation)


def _gspo(config: settings.GspoConfig, _: settings.RunConfig) -> Algorithm:
    surrogate = SequenceClipped(config.clip_low, config.clip_high)
    return Algorithm(advantage.normalized, selection.AllTokens(), surrogate, SequenceMean())


def _cispo(config: settings.CispoConfig, _: settings.RunConfig) -> Algorithm:
    return Algorithm(advantage.normalized, selection.AllTokens(), WeightClipped(config.clip_high), TokenMean())


def _taco(config: settings.TacoConfig, _: settings.RunConfig) -> Algorithm:
    soften = selection.SoftenSurprising(config.alpha, config.strength)
    return Algorithm(advantage.normalized, soften, _clipped(config), TokenMean())


def _full_mask(config: settings.FullMaskConfig, _: settings.RunConfig) -> Algorithm:
    return _silenced(config, selection.SilenceRare(config.tau_p))


def _random(config: settings.RandomMaskConfig, run: settings.RunConfig) -> Algorithm:
    return _silenced(config, selection.SilenceAtRandom(config.tau_p, config.silenced_share, run.seed))


def _high_entropy(config: settings.HighEntropyMaskConfig, _: settings.RunConfig) -> Algorithm:
    return _silenced(config, selection.SilenceUncertain(config.tau_p, config.silenced_share))


def _negative(config: settings.NegativeMaskConfig, _: settings.RunConfig) -> Algorithm:
    return _silenced(config, selection.SilenceSpurious(config.tau_p, config.entropy_quantile, sign=-1))


_COMPOSERS: dict[str, Callable[[Any, settings.RunConfig], Algorithm]] = {
    "stapo": _stapo,
    "grpo": _grpo,
    "justrl": _justrl,
    "entropy20": _entropy20,
    "dapo": _dapo,
    "dr_grpo": _dr_grpo,
    "gspo": _gspo,
    "cispo": _cispo,
    "taco": _taco,
    "full_mask": _full_mask,
    "random": _random,
    "high_entropy": _high_entropy,
    "negative": _negative,
}


def compose(run: settings.RunConfig) -> Algorithm:
    """The algorithm that a run's config names, with what it is combined with."""
    config = run.train.algorithm
    algorithm = _COMPOSERS[config.kind](config, run)
    if config.importance_cap is not None:
        algorithm = replace(algorithm, surrogate=WithImportance(algorithm.surrogate, config.importance_cap))
    if config.kl_coefficient > 0:
        surrogate = WithKl(algorithm.surrogate, config.kl_coefficient)
        algorithm = replace(algorithm, surrogate=surrogate, needs_reference=True)
    return algorithm


def _clipped(config: settings.ClipConfig) -> Clipped:
    return Clipped(config.clip_low, config.clip_high)


def _silenced(config: settings.ClipConfig, silence: Selection) -> Algorithm:
    """All methods that silence tokens share the rest: the clipped surrogate and the mean over what is left."""
    return Algorithm(advantage.normalized, silence, _clipped(config), SurvivingMean())
