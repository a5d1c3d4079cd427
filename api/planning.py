"""A request becomes a plan: every "auto" resolved, the number of steps known, what cannot work refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from api.errors import FieldError, NotFound, Unprocessable
from api.pointers import read_faults
from api.schemas import Hyperparameters, Reinforcement
from stapo_core.config import TrainConfig
from stapo_core.data import DataErrors, check_rows, share_to_hold_out
from stapo_core.graders import item_fields
from stapo_core.graders.templates import TemplateError

CONFIG = "/method/reinforcement/config"
HYPERPARAMETERS = "/method/reinforcement/hyperparameters"
MOST_STEPS = 2**31 - 1


@dataclass(frozen=True)
class Plan:
    """What will run."""

    method: dict[str, Any]
    num_steps: int


def plan_method(asked: Reinforcement, *, num_rows: int, has_validation_file: bool) -> Plan:
    """Resolves the dialect's short list into the config. Raises Unprocessable when the two contradict each other.

    `num_rows` are those of the training file, of which a part may be held out.
    """
    config = _apply(asked.hyperparameters, asked.config)
    share = _held_out_share(config, num_rows, has_validation_file=has_validation_file)
    num_rows -= round(share * num_rows)
    config = _fit_batch(asked, config, num_rows)
    evaluation = config.evaluation.model_copy(update={"held_out_share": share})
    config = config.model_copy(update={"evaluation": evaluation})
    num_epochs = 1 if asked.hyperparameters.n_epochs == "auto" else asked.hyperparameters.n_epochs
    if config.num_steps is None:
        num_steps = max(1, num_rows * num_epochs // config.batch.num_prompts)
        if num_steps > MOST_STEPS:
            detail = f"{num_epochs} epochs are {num_steps} steps; a run has at most {MOST_STEPS}."
            raise _refusal("n_epochs", detail)
        config = config.model_copy(update={"num_steps": num_steps})
    elif asked.hyperparameters.n_epochs != "auto":
        raise _contradiction("n_epochs", "num_steps", config.num_steps)
    assert config.num_steps is not None  # noqa: S101  # set above
    multiplier = asked.hyperparameters.learning_rate_multiplier
    resolved = {
        "n_epochs": num_epochs,
        "batch_size": config.batch.num_prompts,
        "learning_rate_multiplier": 1.0 if multiplier == "auto" else multiplier,
        "eval_interval": config.evaluation.every_steps,
        "eval_samples": config.evaluation.num_samples,
    }
    reinforcement = {
        "grader": asked.grader.model_dump(mode="json"),
        "hyperparameters": resolved,
        "config": config.model_dump(mode="json"),
    }
    return Plan(method={"type": "reinforcement", "reinforcement": reinforcement}, num_steps=config.num_steps)


def check_file(path: Path, asked: Reinforcement, *, param: str, filename: str) -> int:
    """Counts the rows of a data file.

    Raises Unprocessable naming each line that lacks a field the grader reads, and NotFound for a file that was deleted
    since its row was read.
    """
    try:
        fields = item_fields(asked.grader)
    except TemplateError as error:
        raise Unprocessable(str(error), param="method.reinforcement.grader") from error
    try:
        return check_rows(path, fields).num_rows
    except DataErrors as refused:
        if not path.exists():
            raise NotFound(f"{filename} has just been deleted.", code="file_not_found", param=param) from refused
        raise unusable_rows(refused, param=param, filename=filename) from refused


def unusable_rows(refused: DataErrors, *, param: str, filename: str) -> Unprocessable:
    """The refusal of a data file: every reason with its count, and the first hundred lines of each."""
    first, total = refused.errors[0], sum(refused.counts.values())
    counts = ", ".join(f"{count:,} {reason}" for reason, count in refused.counts.items())
    more = f" (the first of {total:,} faults: {counts}; see errors)" if total > 1 else ""
    return Unprocessable(
        f"{filename}: {first}{more}",
        code="invalid_training_data",
        param=param,
        errors=[FieldError(pointer=f"/{param}#line={error.line}", detail=str(error)) for error in refused.errors],
    )


def find_model(models_dir: Path, name: str) -> Path:
    """The folder of a base model that the operator allows. Raises NotFound naming those there are."""
    known = list_models(models_dir)
    if name not in known:
        listed = ", ".join(sorted(known)) or "none yet: put a Hugging Face folder below STAPO_HOME/models"
        raise NotFound(f"There is no base model '{name}'. Known: {listed}.", code="model_not_found", param="model")
    return known[name]


def list_models(models_dir: Path) -> dict[str, Path]:
    """Base models by name: the folders in Hugging Face layout that the operator put there."""
    if not models_dir.is_dir():
        return {}
    return {path.name: path for path in models_dir.iterdir() if (path / "config.json").is_file()}


def _held_out_share(config: TrainConfig, num_rows: int, *, has_validation_file: bool) -> float:
    share = config.evaluation.held_out_share
    if share and has_validation_file:
        detail = (
            f"config.evaluation.held_out_share {share} asks for a part of the training file, and a validation_file is "
            "given; set the share to 0 or leave the file out."
        )
        fault = FieldError(pointer=f"{CONFIG}/evaluation/held_out_share", detail=detail)
        raise Unprocessable(detail, param="method.reinforcement.config.evaluation.held_out_share", errors=[fault])
    return share_to_hold_out(share, num_rows, has_validation_file=has_validation_file)


def _fit_batch(asked: Reinforcement, config: TrainConfig, num_rows: int) -> TrainConfig:
    """A step takes no more prompts than there are rows: one that nobody has sized is made to fit.

    Raises Unprocessable, naming the field, where the size that was asked for does not fit.
    """
    num_prompts = config.batch.num_prompts
    if num_prompts <= num_rows:
        return config
    is_automatic = asked.hyperparameters.batch_size == "auto"
    fitting = num_rows - num_rows % config.batch.num_minibatches
    if fitting and is_automatic and not _is_set(asked.config, "batch", "num_prompts"):
        return config.model_copy(update={"batch": config.batch.model_copy(update={"num_prompts": fitting})})
    field = "config/batch/num_prompts" if is_automatic else "hyperparameters/batch_size"
    detail = (
        f"a step takes {num_prompts} prompts and {num_rows} rows are there to train on; "
        f"set {field.rpartition('/')[2]} to at most {num_rows} or add rows."
    )
    fault = FieldError(pointer=f"/method/reinforcement/{field}", detail=detail)
    param = f"method.reinforcement.{field.replace('/', '.')}"
    raise Unprocessable(detail, code="too_few_rows", param=param, errors=[fault])


def _apply(short: Hyperparameters, config: TrainConfig) -> TrainConfig:
    """Sets the config fields that the short list names. A field set twice, differently, is refused."""
    data = config.model_dump()
    targets = {
        "batch_size": ("batch", "num_prompts"),
        "eval_interval": ("evaluation", "every_steps"),
        "eval_samples": ("evaluation", "num_samples"),
    }
    for name, (group, field) in targets.items():
        value = getattr(short, name)
        if value == "auto":
            continue
        if _is_set(config, group, field) and data[group][field] != value:
            raise _contradiction(name, f"{group}/{field}", data[group][field])
        data[group][field] = value
    if short.learning_rate_multiplier != "auto":
        data["optimizer"]["learning_rate"] *= short.learning_rate_multiplier
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        faults = read_faults(error, below=CONFIG)
        raise Unprocessable(faults[0].detail, param="method.reinforcement.hyperparameters", errors=faults) from error


def _is_set(config: TrainConfig, group: str, field: str) -> bool:
    return group in config.model_fields_set and field in getattr(config, group).model_fields_set


def _contradiction(short: str, field: str, value: object) -> Unprocessable:
    detail = f"hyperparameters.{short} contradicts config.{field.replace('/', '.')} ({value}); set only one of them."
    return _refusal(short, detail)


def _refusal(short: str, detail: str) -> Unprocessable:
    fault = FieldError(pointer=f"{HYPERPARAMETERS}/{short}", detail=detail)
    return Unprocessable(detail, param=f"method.reinforcement.hyperparameters.{short}", errors=[fault])
