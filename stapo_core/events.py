"""What a run says: one JSON object per line in `events.jsonl`, appended by the trainer and read by its supervisor.

A line is whole when it ends in a newline; a torn tail is cut off by the next attempt. Knows pydantic alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

EXIT_DONE = 0
EXIT_STOPPED = 75  # stopped on request, with a checkpoint
EXIT_HALTED = 74  # cannot go on before somebody acts; the last checkpoint is whole
EXIT_FENCED = 76  # another trainer holds this run directory
EXIT_BAD_CONFIG = 78  # never retried

MAX_TEXT = 10_000
HaltReason = Literal["storage_full", "grader_errors"]
Text = Annotated[str, AfterValidator(lambda text: text[:MAX_TEXT])]
Stage = Literal["loading", "evaluating", "sampling", "grading", "learning", "saving", "exporting"]


class Event(BaseModel):
    """Common to all events: seconds since the epoch at which the trainer wrote it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: float


class StageChanged(Event):
    """The trainer turned to another part of its work; the last one names where a dead trainer died."""

    type: Literal["stage"] = "stage"
    stage: Stage
    step: int = 0


class Started(Event):
    """The model is loaded and the loop begins. Everything above `resume_step` will be done again."""

    type: Literal["started"] = "started"
    resume_step: int
    num_steps: int
    num_train_rows: int
    num_parameters: int
    device: str
    engine: str = ""
    """What draws the responses, and why it was chosen."""
    versions: dict[str, str]


class StepDone(Event):
    """One step of the loop. Metric keys are `area/name`; a value that is not finite is null and named in `flags`."""

    type: Literal["step"] = "step"
    step: int
    metrics: dict[str, float | None]
    flags: list[str] = []


class Evaluated(Event):
    """The validation files were scored with the weights after `step`: `eval/...`, and `eval/<name>/...` of each."""

    type: Literal["evaluation"] = "evaluation"
    step: int
    metrics: dict[str, float | None]
    final: bool = False


class CheckpointFile(BaseModel):
    """One file of a checkpoint, by its path below the checkpoint's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    bytes: int
    sha256: str


class CheckpointSaved(Event):
    """A checkpoint is whole on disk: `folder` is relative to the run directory and holds a manifest of `files`."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    folder: str
    files: list[CheckpointFile]
    final: bool = False
    best: bool = False
    """No earlier step has had a better validation reward; of several such checkpoints the newest is the best."""


class RolloutsRecorded(Event):
    """Every token of the step's responses stands in a parquet file: `file` is relative to the run directory."""

    type: Literal["rollouts"] = "rollouts"
    step: int
    file: str


class CheckpointRejected(Event):
    """A checkpoint found at start did not verify and was not used."""

    type: Literal["checkpoint_rejected"] = "checkpoint_rejected"
    folder: str
    reason: Text


class Unjudged(BaseModel):
    """A response that the grader could not judge: `kind` is what went wrong; both texts may be cut."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    prompt: str
    response: str


class GraderErrors(Event):
    """So many of a step's responses could not be judged that the run is paused: counts by kind, and examples."""

    type: Literal["grader_errors"] = "grader_errors"
    step: int
    num_responses: int
    errors: dict[str, int]
    examples: list[Unjudged]


class Warned(Event):
    """Something the user should know that does not stop the run."""

    type: Literal["warning"] = "warning"
    message: Text
    step: int = 0


class Finished(Event):
    """The loop ended as planned, or stopped on request with a checkpoint."""

    type: Literal["finished"] = "finished"
    step: int
    reason: Literal["num_steps_reached", "stopped"]


class Halted(Event):
    """The run cannot go on before somebody acts: it is paused, and goes on from its last checkpoint when resumed."""

    type: Literal["halted"] = "halted"
    stage: Stage
    reason: HaltReason
    message: Text


class Failed(Event):
    """The trainer gave up and says why; `param` points at the config field at fault, if one is."""

    type: Literal["failed"] = "failed"
    stage: Stage
    code: str
    message: Text
    param: str | None = None
    retryable: bool = False


TrainerEvent = Annotated[
    StageChanged
    | Started
    | StepDone
    | Evaluated
    | CheckpointSaved
    | RolloutsRecorded
    | CheckpointRejected
    | GraderErrors
    | Warned
    | Finished
    | Halted
    | Failed,
    Field(discriminator="type"),
]

_ADAPTER: TypeAdapter[TrainerEvent] = TypeAdapter(TrainerEvent)


def parse_event(line: str | bytes) -> TrainerEvent:
    """Reads one line of the spool. Raises pydantic.ValidationError when it is not a trainer event."""
    return _ADAPTER.validate_json(line)
