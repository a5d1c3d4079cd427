"""One small class per algorithm, and what every algorithm can be combined with. Knows pydantic alone.

What the fields do stands in `stapo_core.algorithms`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stapo_core.config.strict import ClipRange, Positive, Probability, Strict


class AlgorithmConfig(Strict):
    """What every algorithm can be combined with; all of it is off unless the algorithm's own paper has it on."""

    importance_cap: Annotated[float, Field(ge=1.0)] | None = None
    """Truncated importance sampling: tokens weigh min(p_trainer / p_sampler, cap); 2 is usual, off when omitted."""
    dynamic_sampling_rounds: Annotated[int, Field(ge=0, le=100)] = 0
    """Groups of equal rewards are replaced by groups of other prompts, in at most this many extra rounds; 0 is off.
    `reward/mean` is then the mean over the groups that are kept, `reward/mean_drawn` over those drawn first."""
    overlong_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """In this last share of max_response_tokens the reward falls linearly, by 1 at the very end; 0 is off."""
    kl_coefficient: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the k3 estimate of KL(policy || base model); 0 keeps no reference model in memory."""


class ClipConfig(AlgorithmConfig):
    """The two sides of the ratio's clip range."""

    clip_low: ClipRange = 0.2
    """The ratio is clipped below 1 - clip_low."""
    clip_high: Annotated[float, Field(gt=0.0)] = 0.28
    """The ratio is clipped above 1 + clip_high."""


class RareTokenConfig(ClipConfig):
    """The threshold below which a token is rare."""

    tau_p: Probability = 0.002
    """A token with an advantage of the masked sign is a candidate when its probability lies below this."""


class StapoConfig(RareTokenConfig):
    """STAPO (arXiv 2602.15620): spurious tokens are masked and the loss is the mean over the surviving tokens."""

    kind: Literal["stapo"] = "stapo"
    entropy_scope: Literal["candidates", "all_tokens"] = "candidates"
    """The tokens whose entropies give the threshold tau_h: the candidates (v4, v5) or all response tokens (v1-v3)."""
    entropy_quantile: Probability | None = None
    """The quantile of entropy that is tau_h; when omitted, 0.75 over candidates and 0.80 over all tokens."""
    entropy_window: Positive = 1
    """Mini-batches whose candidates the quantile is taken over; 1 is the paper. Only for the scope `candidates`."""
    target_ppm: Annotated[float, Field(gt=0.0, le=100_000.0)] | None = None
    """tau_p is steered, from its set value, to silence this many tokens per million; it stays fixed when omitted."""

    @model_validator(mode="after")
    def _window_needs_candidates(self) -> Self:
        if self.entropy_window > 1 and self.entropy_scope != "candidates":
            raise ValueError("entropy_window above 1 needs entropy_scope 'candidates'; set it to 1 for 'all_tokens'")
        return self

    @property
    def quantile(self) -> float:
        """The quantile in force, the paper's value for the scope when none is set."""
        if self.entropy_quantile is not None:
            return self.entropy_quantile
        return 0.75 if self.entropy_scope == "candidates" else 0.80


class GrpoConfig(ClipConfig):
    """GRPO (arXiv 2402.03300): every token counts; the loss is the mean of per-sequence means."""

    kind: Literal["grpo"] = "grpo"
    clip_high: Annotated[float, Field(gt=0.0)] = 0.2
    """The ratio is clipped above 1 + clip_high."""


class JustrlConfig(ClipConfig):
    """JustRL (arXiv 2512.16649): every token counts, the loss is the mean over tokens, the ratio is clipped twice."""

    kind: Literal["justrl"] = "justrl"
    dual_clip: Annotated[float, Field(gt=1.0)] = 10.0
    """Where the advantage is negative, a ratio above this no longer adds to the loss."""


class Entropy20Config(ClipConfig):
    """20-Entropy (arXiv 2506.01939): only the tokens of highest entropy count; the loss is their mean."""

    kind: Literal["entropy20"] = "entropy20"
    kept_share: Probability = 0.2
    """The share of the mini-batch's tokens that count, those of highest entropy."""


class DapoConfig(ClipConfig):
    """DAPO (arXiv 2503.14476): mean over tokens, wide upper clip, dynamic sampling, soft overlong penalty."""

    kind: Literal["dapo"] = "dapo"
    dynamic_sampling_rounds: Annotated[int, Field(ge=0, le=100)] = 10
    """Groups of equal rewards are replaced by groups of other prompts, in at most this many extra rounds; 0 is off.
    `reward/mean` is then the mean over the groups that are kept, `reward/mean_drawn` over those drawn first."""
    overlong_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """In this last share of max_response_tokens the reward falls linearly, by 1 at the very end; 0 is off."""


class DrGrpoConfig(ClipConfig):
    """Dr. GRPO (arXiv 2503.20783): advantages are not divided by the std, nor losses by lengths."""

    kind: Literal["dr_grpo"] = "dr_grpo"
    clip_high: Annotated[float, Field(gt=0.0)] = 0.2
    """The ratio is clipped above 1 + clip_high."""


class GspoConfig(ClipConfig):
    """GSPO (arXiv 2507.18071): one ratio per response, the geometric mean of its tokens' ratios."""

    kind: Literal["gspo"] = "gspo"
    clip_low: ClipRange = 3e-4
    """The response's ratio is clipped below 1 - clip_low."""
    clip_high: Annotated[float, Field(gt=0.0)] = 4e-4
    """The response's ratio is clipped above 1 + clip_high."""


class CispoConfig(AlgorithmConfig):
    """CISPO (arXiv 2506.13585): the clipped ratio is a weight without gradient, so no token's gradient is cut."""

    kind: Literal["cispo"] = "cispo"
    clip_high: Annotated[float, Field(gt=0.0)] = 0.2
    """The ratio is clipped above 1 + clip_high; it is not clipped below."""


class TacoConfig(ClipConfig):
    """TACO (arXiv 2607.07976): surprising tokens of good responses weigh less, the more so the more they surprise."""

    kind: Literal["taco"] = "taco"
    alpha: Probability = 0.01
    """A token is surprising when -log p exceeds the entropy by more than -log alpha."""
    strength: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    """The most that a weight is lowered by."""


class FullMaskConfig(RareTokenConfig):
    """An ablation of STAPO: every candidate is silenced, whatever its entropy (tau_h is infinite)."""

    kind: Literal["full_mask"] = "full_mask"


class RandomMaskConfig(RareTokenConfig):
    """An ablation of STAPO: as many candidates are silenced, chosen at random instead of by entropy."""

    kind: Literal["random"] = "random"
    silenced_share: Probability = 0.75
    """The share of the candidates that is silenced."""


class HighEntropyMaskConfig(RareTokenConfig):
    """An ablation of STAPO: as many candidates are silenced, those of highest entropy instead of lowest."""

    kind: Literal["high_entropy"] = "high_entropy"
    silenced_share: Probability = 0.75
    """The share of the candidates that is silenced."""


class NegativeMaskConfig(RareTokenConfig):
    """The mirror image of STAPO: rare and certain tokens of bad responses are silenced."""

    kind: Literal["negative"] = "negative"
    entropy_quantile: Probability = 0.75
    """The quantile of the candidates' entropies below which a candidate is silenced."""


Algorithm = Annotated[
    StapoConfig
    | GrpoConfig
    | JustrlConfig
    | Entropy20Config
    | DapoConfig
    | DrGrpoConfig
    | GspoConfig
    | CispoConfig
    | TacoConfig
    | FullMaskConfig
    | RandomMaskConfig
    | HighEntropyMaskConfig
    | NegativeMaskConfig,
    Field(discriminator="kind"),
]
