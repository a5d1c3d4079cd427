"""What a run is told: one definition behind REST, the stored row, the trainer's input file and the dashboard.

Knows pydantic alone; must stay free of torch, so that every service can read a config. Each field's sentence is
the public API text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
ClipRange = Annotated[float, Field(gt=0.0, lt=1.0)]


class Strict(BaseModel):
    """Refuses unknown fields, NaN and infinity, each by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


# --- algorithms -------------------------------------------------------------------------------------------------


class AlgorithmConfig(Strict):
    """What every algorithm can be combined with; all of it is off unless the algorithm's own paper has it on."""

    importance_cap: Annotated[float, Field(ge=1.0)] | None = None
    """Truncated importance sampling: tokens weigh min(p_trainer / p_sampler, cap); 2 is usual, off when omitted."""
    dynamic_sampling_rounds: Annotated[int, Field(ge=0, le=100)] = 0
    """Groups of equal rewards are replaced by groups of other prompts, in at most this many extra rounds; 0 is off."""
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
    """Groups of equal rewards are replaced by groups of other prompts, in at most this many extra rounds; 0 is off."""
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


# --- graders ----------------------------------------------------------------------------------------------------


class StringCheckGrader(Strict):
    """1 when the two strings compare as `operation` says, else 0."""

    type: Literal["string_check"]
    name: str = "string_check"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text to check; `{{sample.output_text}}` and `{{item.<field>}}` are filled in."""
    reference: str
    """The text to compare with; the same variables are filled in."""
    operation: Literal["eq", "ne", "like", "ilike"]
    """eq and ne compare whole strings; like and ilike look for the reference inside the input."""


class NumericGrader(Strict):
    """1 when the last number of the response lies within the tolerances of the reference, else 0."""

    type: Literal["numeric"]
    name: str = "numeric"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text whose last number is read."""
    reference: str
    """The right number, usually `{{item.answer}}`."""
    absolute_tolerance: Annotated[float, Field(ge=0.0)] = 0.0
    """The largest difference that still counts as right."""
    relative_tolerance: Annotated[float, Field(ge=0.0)] = 1e-9
    """The largest difference, as a share of the reference, that still counts as right."""


class MathGrader(Strict):
    """1 when the response's boxed answer (or its last expression) is mathematically equal to the reference, else 0."""

    type: Literal["math"]
    name: str = "math"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text that holds the answer."""
    reference: str
    """The right answer as LaTeX or a plain number, usually `{{item.answer}}`."""
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 5.0
    """Seconds after which one comparison counts as wrong."""


Grader = Annotated[StringCheckGrader | NumericGrader | MathGrader, Field(discriminator="type")]


# --- the run ----------------------------------------------------------------------------------------------------


class BatchConfig(Strict):
    """How many prompts and responses one step takes, and how the learner cuts them up."""

    num_prompts: Positive = 64
    """Prompts per step."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Responses sampled per prompt; the advantage compares them, so at least 2."""
    num_minibatches: Positive = 1
    """Optimizer updates per rollout; must divide num_prompts."""
    max_tokens_per_microbatch: Annotated[int, Field(ge=64)] = 16384
    """Most tokens in one forward and backward pass; it bounds memory and never changes the gradient."""
    num_passes: Positive = 1
    """Times that each rollout is learned from; beyond the first, ratios move away from 1 and the clip works."""

    @model_validator(mode="after")
    def _minibatches_divide(self) -> Self:
        if self.num_prompts % self.num_minibatches:
            divisors = [n for n in range(1, self.num_prompts + 1) if self.num_prompts % n == 0]
            raise ValueError(
                f"num_minibatches {self.num_minibatches} does not divide num_prompts {self.num_prompts}; "
                f"these do: {divisors}"
            )
        return self


class SamplingConfig(Strict):
    """How responses are drawn."""

    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 1.0
    """Softmax temperature of sampling and of the probabilities the algorithm sees."""
    max_prompt_tokens: Positive = 1024
    """Prompts longer than this are refused before the run starts."""
    max_response_tokens: Positive = 2048
    """Responses are cut at this many tokens."""


class OptimizerConfig(Strict):
    """AdamW with a linear warm-up."""

    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-6
    """The rate after warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    """Updates over which the rate rises linearly from 0."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the rate goes on after warm-up: constant, or falling to 0 at the last update."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    """Decoupled weight decay; not applied to vectors (norms, biases)."""
    beta1: Probability = 0.9
    """Decay of the first moment."""
    beta2: Probability = 0.999
    """Decay of the second moment."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """The gradient is scaled down to this global norm."""


class EvaluationConfig(Strict):
    """How the validation file is scored: mean reward over num_samples responses per problem (avg@k)."""

    every_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations; 0 evaluates only before the first step and after the last."""
    num_samples: Positive = 1
    """Responses per problem."""
    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 1.0
    """Softmax temperature of the evaluation."""
    max_problems: Positive | None = None
    """Only the first so many problems are scored; all when omitted."""


class CheckpointConfig(Strict):
    """When a checkpoint is written; whichever limit is reached first. One more is written at the end."""

    every_steps: Positive = 50
    """Steps between checkpoints."""
    every_s: Annotated[float, Field(gt=0.0)] = 600.0
    """Seconds between checkpoints."""
    keep: Positive = 3
    """Checkpoints kept; the oldest are removed first."""


class LoraConfig(Strict):
    """Low-rank adapters on every linear layer but the head; the base weights stay as they are."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 32
    """Rank of the adapters."""
    alpha: Annotated[float, Field(gt=0.0)] = 64.0
    """The adapters' output is scaled by alpha / rank."""
    merge: bool = False
    """Checkpoints hold the whole model with the adapters merged in, instead of the adapters alone."""


class TrainConfig(Strict):
    """How a run trains. Every field has a default; the resolved values are given back with the job."""

    algorithm: Algorithm = StapoConfig()
    """The policy-optimisation method and its constants."""
    num_steps: Positive | None = None
    """Steps of the run; when omitted, n_epochs passes over the training file."""
    batch: BatchConfig = BatchConfig()
    """Sizes of a step."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are drawn."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the validation file is scored."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When checkpoints are written."""
    lora: LoraConfig | None = None
    """Trains low-rank adapters; all weights are trained when omitted."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the weights in forward passes; auto is float32 on a CPU and bfloat16 on a GPU."""
    gradient_checkpointing: bool = False
    """Recomputes activations in the backward pass: less memory, about a third more work, prompts not shared."""
    record_rollouts_every: Annotated[int, Field(ge=0)] = 10
    """Steps between recorded rollouts (parquet, per token); 0 records none."""

    @model_validator(mode="after")
    def _longest_response_fits(self) -> Self:
        longest = self.sampling.max_prompt_tokens + self.sampling.max_response_tokens
        if longest > self.batch.max_tokens_per_microbatch:
            raise ValueError(
                f"batch.max_tokens_per_microbatch {self.batch.max_tokens_per_microbatch} cannot hold one prompt and "
                f"response of up to {longest} tokens; set it to at least {longest}"
            )
        return self


class RunConfig(Strict):
    """The trainer's whole input, `config.json` in the run directory (or a YAML file for `stapo train`)."""

    model: Path
    """Folder of the base model in Hugging Face layout."""
    training_file: Path
    """JSONL: one `{"prompt": ..., ...reference fields}` per line."""
    validation_file: Path | None = None
    """JSONL in the same form, scored before, during and after training."""
    grader: Grader
    """What a response is rewarded for."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """All randomness of the run follows from it."""
    train: TrainConfig = TrainConfig()
    """How the run trains."""
    num_epochs: Positive = 1
    """Passes over the training file, where train.num_steps is omitted."""
