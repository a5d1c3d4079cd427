"""What a job is asked for, around `stapo_core.config`; unknown fields are refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from stapo_core.config import Grader, Positive, Strict, TrainConfig

Auto = Literal["auto"]
PositiveFloat = Annotated[float, Field(gt=0.0)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]


class Hyperparameters(Strict):
    """The dialect's short list; each names a field of `config`, and "auto" leaves that field as it is."""

    n_epochs: Annotated[Positive, Field(lt=2**31)] | Auto = "auto"
    """Passes over the training file, where config.num_steps is omitted; auto is 1."""
    batch_size: Positive | Auto = "auto"
    """Prompts per step (config.batch.num_prompts)."""
    learning_rate_multiplier: PositiveFloat | Auto = "auto"
    """Multiplies config.optimizer.learning_rate."""
    eval_interval: Positive | Auto = "auto"
    """Steps between evaluations (config.evaluation.every_steps)."""
    eval_samples: Positive | Auto = "auto"
    """Responses per validation problem (config.evaluation.num_samples)."""


class Reinforcement(Strict):
    """Reinforcement fine-tuning: what is rewarded and how the policy is updated."""

    grader: Grader
    """What a response is rewarded for."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """The dialect's short list."""
    config: TrainConfig = TrainConfig()
    """How the run trains, in full."""


class Method(Strict):
    """The method of fine-tuning; this service offers reinforcement."""

    type: Literal["reinforcement"]
    """Always `reinforcement`."""
    reinforcement: Reinforcement
    """Its parameters."""


Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Suffix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
JobName = Annotated[str, Field(min_length=1, max_length=128)]


class JobCreate(Strict):
    """A job to run."""

    model: str
    """A model of GET /v1/models: a base model, or a fine-tuned one or checkpoint of yours to go on from."""
    training_file: str
    """Id of an uploaded JSONL file of problems."""
    validation_file: str | None = None
    """Id of an uploaded JSONL file that is scored before, during and after training."""
    method: Method
    """How to fine-tune."""
    suffix: Suffix | None = None
    """Letters, digits, `_` and `-` that end up in the name of the fine-tuned model."""
    seed: Seed | None = None
    """All randomness of the run follows from it; drawn and given back when omitted."""
    metadata: Metadata | None = None
    """Up to 16 pairs of your own."""
    name: JobName | None = None
    """What you call the job."""


class JobPatch(Strict):
    """What may be changed of a job at any time; what is omitted stays."""

    name: JobName | None = None
    """What you call the job; null takes the name away."""
    metadata: Metadata | None = None
    """Up to 16 pairs of your own, in place of those there are; null takes them away."""
    priority: Annotated[int, Field(ge=-10, le=10)] = 0
    """Waiting jobs of higher priority go first."""


class ForkCreate(Strict):
    """A new job from a checkpoint of this one; what is omitted is as this job has it, save for its name and seed.

    The part that this job holds out (`config.evaluation.held_out_share`) does not pass to a fork that names a file.
    """

    checkpoint: str | None = None
    """Id of a checkpoint of this job; the newest one when omitted."""
    training_file: str | None = None
    """Id of an uploaded JSONL file of problems."""
    validation_file: str | None = None
    """Id of an uploaded JSONL file that is scored before, during and after training; null for none."""
    grader: Grader | None = None
    """What a response is rewarded for."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Changes to the resolved config, merged into it (RFC 7396): null takes a field back to its default."""
    suffix: Suffix | None = None
    """Letters, digits, `_` and `-` that end up in the name of the fine-tuned model."""
    seed: Seed | None = None
    """All randomness of the run follows from it; drawn and given back when omitted."""
    metadata: Metadata | None = None
    """Up to 16 pairs of your own."""
    name: JobName | None = None
    """What you call the job."""
