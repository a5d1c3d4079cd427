"""How a run is sized, trained, scored and saved. Knows pydantic alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from stapo_core.config.algorithms import Algorithm, StapoConfig
from stapo_core.config.graders import Grader
from stapo_core.config.sources import ReasoningGymSource
from stapo_core.config.strict import Positive, Probability, Strict


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
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What draws responses; auto is vllm on a GPU where it is installed, else transformers, and the job says which."""
    gpu_memory_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    """Share of a GPU's memory that vllm takes while it draws; it lends it to the learner in between."""
    tensor_parallel_size: Positive = 1
    """Processes of a run under torchrun that share one vllm engine, for models too large for one GPU."""


class OptimizerConfig(Strict):
    """AdamW with a linear warm-up."""

    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-6
    """The rate after warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    """Updates over which the rate rises linearly from 0."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the rate goes on after warm-up: constant, or falling to 0, which it has reached after the last update."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    """Decoupled weight decay; not applied to vectors (norms, biases)."""
    beta1: Probability = 0.9
    """Decay of the first moment."""
    beta2: Probability = 0.999
    """Decay of the second moment."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """The gradient is scaled down to this global norm."""


class EvaluationConfig(Strict):
    """How validation files are scored: mean reward over num_samples responses per problem (avg@k), and pass@k."""

    every_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations; 0 evaluates only before the first step and after the last."""
    num_samples: Positive = 1
    """Responses per problem."""
    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 1.0
    """Softmax temperature of the evaluation."""
    max_problems: Positive | None = None
    """Only the first so many problems are scored; all when omitted."""
    held_out_share: Annotated[float, Field(ge=0.0, le=0.5)] | None = None
    """Share of the training file's distinct prompts that is held out by the seed and scored, where there is no
    validation file; when omitted, 0.05 (at most 200 prompts) of a file with at least 200 rows, else none."""


class GradingConfig(Strict):
    """What becomes of a run whose grader often cannot judge, or gives every response the same score."""

    max_error_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    """A run pauses, with examples, when more than this share of a step's responses cannot be judged; 1 never pauses."""
    refuse_one_score_after: Annotated[int, Field(ge=0)] = 256
    """A run ends when so many responses, from its first on, all got one score: it cannot learn; 0 trains on."""


class CheckpointConfig(Strict):
    """When a checkpoint is written; whichever limit is reached first. One more is written at the end."""

    every_steps: Positive = 50
    """Steps between checkpoints."""
    every_s: Annotated[float, Field(gt=0.0)] = 600.0
    """Seconds between checkpoints."""
    keep: Positive = 3
    """Checkpoints kept; the oldest are removed first."""
    keep_best: bool = True
    """Each step with the best validation reward so far is saved at once, and the best checkpoint is never removed."""


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
    num_steps: Annotated[Positive, Field(lt=2**31)] | None = None
    """Steps of the run; when omitted, n_epochs passes over the training file."""
    batch: BatchConfig = BatchConfig()
    """Sizes of a step."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are drawn."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the validation file is scored."""
    grading: GradingConfig = GradingConfig()
    """What becomes of a run whose grader fails it."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When checkpoints are written."""
    lora: LoraConfig | None = None
    """Trains low-rank adapters; all weights are trained when omitted."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the weights in forward passes; auto is float32 on a CPU and bfloat16 on a GPU."""
    gradient_checkpointing: bool = False
    """Recomputes activations in the backward pass: less memory, about a third more work, prompts not shared."""
    record_rollouts_every: Annotated[int, Field(ge=0)] = 10
    """Steps between full records: the figures of every token. The steps between keep every response, and these figures
    for responses with a silenced token and for rare tokens of positive advantage; 0 records nothing."""

    @model_validator(mode="after")
    def _longest_response_fits(self) -> Self:
        longest = self.sampling.max_prompt_tokens + self.sampling.max_response_tokens
        if longest > self.batch.max_tokens_per_microbatch:
            raise ValueError(
                f"batch.max_tokens_per_microbatch {self.batch.max_tokens_per_microbatch} cannot hold one prompt and "
                f"response of up to {longest} tokens; set it to at least {longest}"
            )
        return self


class HeldOutConfig(Strict):
    """One more validation file, and how it is scored where that differs from `train.evaluation`."""

    model_config = ConfigDict(strict=False)  # a file names paths by text

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    """Its metrics are `eval/<name>/...`: lower-case letters, digits, dashes and underscores."""
    file: Path | ReasoningGymSource
    """In the form of the training file; one file may stand here several times, each time scored another way."""
    num_samples: Positive | None = None
    """Responses per problem; that of train.evaluation when omitted."""
    temperature: Annotated[float, Field(gt=0.0, le=2.0)] | None = None
    """Softmax temperature; that of train.evaluation when omitted."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Draws from the fewest words that hold this much probability; 1 draws from all."""
    max_problems: Positive | None = None
    """Only the first so many problems are scored; that of train.evaluation when omitted."""


class RunConfig(Strict):
    """The trainer's whole input, `config.json` in the run directory (or a YAML file for `stapo train`)."""

    model_config = ConfigDict(strict=False)  # a file names paths by text, and lists stand for tuples

    model: Path
    """Folder of the base model in Hugging Face layout."""
    training_file: Path | ReasoningGymSource
    """One `{"prompt": ..., ...reference fields}` per line (JSONL, also under gzip or zstd) or row (parquet); or a
    generator in place of a file, `{"source": "reasoning_gym", "task": ..., "config": {...}}`."""
    validation_file: Path | ReasoningGymSource | None = None
    """Problems in the same form, scored before, during and after training."""
    validation_files: tuple[HeldOutConfig, ...] = ()
    """More of them, by name; without a validation_file the first of these also gives the metrics `eval/...`."""
    grader: Grader
    """What a response is rewarded for."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """All randomness of the run follows from it."""
    train: TrainConfig = TrainConfig()
    """How the run trains."""
    num_epochs: Positive = 1
    """Passes over the training file, where train.num_steps is omitted."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [each.name for each in self.validation_files]
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise ValueError(f"validation_files has the name {twice!r} twice; call one of them {twice + '-2'!r}")
        return self

    @model_validator(mode="after")
    def _one_way_to_validate(self) -> Self:
        share = self.train.evaluation.held_out_share
        if share and (self.validation_file is not None or self.validation_files):
            raise ValueError(
                f"train.evaluation.held_out_share {share} asks for a part of the training file, and a validation file "
                "is given; leave one of them out"
            )
        return self
