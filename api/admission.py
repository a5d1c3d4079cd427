"""From a request for a job to the job: model and files are found, the grader and the rows checked, the plan is made.

Three steps: `draft_…` reads rows, `plan_job` reads files and knows no database, `hold_sources` makes sure of the rows.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from api import grading, planning
from api.errors import Conflict, NotFound, Unprocessable
from api.pointers import read_faults
from api.schemas import ForkCreate, JobCreate, JobEstimate, JobPreview, MemoryEstimate, Reinforcement, model_name
from api.settings import Settings
from api.store import artifacts, files, jobs
from api.store.database import Session
from api.store.jobs import Base, NewJob
from api.store.tables import Checkpoint, Job
from stapo_core.config import TrainConfig
from stapo_core.estimate import estimate

FILES = ("validation_file", "training_file")
"""The fields that name files, the one whose rows are trained on last."""
_FINE_TUNED = re.compile(r"(?P<whole>ft:.*:(?P<job>[0-9a-f]{32}))(:ckpt-step-(?P<step>[0-9]{1,9}))?")


@dataclass(frozen=True)
class Draft:
    """A request whose model and files were found; what is left to be checked needs no database."""

    body: JobCreate
    model: str
    base: Base | None
    filenames: dict[str, str]
    """What the files are called, by the field that names them."""


def draft_job(session: Session, tenant: str, body: JobCreate, settings: Settings) -> Draft:
    """Finds what a request names. Raises NotFound naming the field at fault."""
    model, base = find_model(session, tenant, body.model, settings)
    named = {param: getattr(body, param) for param in FILES if getattr(body, param) is not None}
    filenames = {param: files.get_file(session, tenant, named[param], param=param).filename for param in named}
    return Draft(body, model, base, filenames)


def plan_job(draft: Draft, settings: Settings) -> NewJob:
    """What is asked for, checked and resolved. Raises Unprocessable naming the field or the line at fault."""
    body, asked = draft.body, draft.body.method.reinforcement
    grading.check(asked.grader, allows_user_code=settings.allows_user_code, param="method.reinforcement.grader")
    num_rows = 0
    for param, filename in draft.filenames.items():
        path = files.file_path(settings.files_dir, getattr(body, param))
        num_rows = planning.check_file(path, asked, param=param, filename=filename)
    plan = planning.plan_method(asked, num_rows=num_rows, has_validation_file=body.validation_file is not None)
    return NewJob(
        model=draft.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        suffix=body.suffix,
        seed=body.seed if body.seed is not None else secrets.randbelow(2**31),
        method=plan.method,
        num_steps=plan.num_steps,
        metadata=body.metadata or {},
        name=body.name,
        base=draft.base,
    )


def hold_sources(session: Session, tenant: str, new: NewJob) -> None:
    """Keeps the files and the checkpoint of a planned job from being removed until the transaction ends.

    Raises NotFound for a file, and Conflict for a checkpoint, that was removed since the job was drafted.
    """
    for param in FILES:
        if getattr(new, param) is not None:
            files.hold_file(session, tenant, getattr(new, param), param=param)
    if new.base is not None:
        jobs.lock_job(session, tenant, new.base.job_id)  # holds off the worker that would drop the checkpoint
        found = artifacts.find_checkpoint(session, tenant, new.base.job_id, new.base.step)
        if found is None or found[0].id != new.base.checkpoint_id:
            raise Conflict(
                "The checkpoint has been replaced by newer ones while the files were checked; ask again.",
                code="checkpoint_replaced",
                retry_after_s=1,
            )


def draft_fork(session: Session, tenant: str, job_id: str, body: ForkCreate, settings: Settings) -> Draft:
    """A job like another one, from one of its checkpoints, with what `body` changes."""
    parent = jobs.get_job(session, tenant, job_id)
    checkpoint = _choose_checkpoint(session, parent, body.checkpoint)
    given = body.model_dump(exclude={"checkpoint", "grader", "config"}, exclude_unset=True)
    given["training_file"] = body.training_file or parent.training_file
    request = JobCreate.model_validate(
        {
            "model": f"{model_name(parent)}:ckpt-step-{checkpoint.step}",
            "validation_file": parent.validation_file,
            "suffix": parent.suffix,
            "metadata": parent.user_metadata,
            "method": {"type": "reinforcement", "reinforcement": _changed(parent, body)},
            **given,
        }
    )
    return draft_job(session, tenant, request, settings)


def preview(new: NewJob, settings: Settings) -> JobPreview:
    """The plan and what it will take, nothing queued."""
    config = TrainConfig.model_validate(new.method["reinforcement"]["config"])
    responses = config.batch.num_prompts * config.batch.group_size
    folder = settings.models_dir / new.model
    if new.base is not None:
        folder = artifacts.folder_path(settings.artifacts_dir, new.base.job_id, new.base.step)
    memory, flops = _memory(folder, config)
    return JobPreview(
        model=new.model,
        base_checkpoint=new.base.checkpoint_id if new.base else None,
        training_file=new.training_file,
        validation_file=new.validation_file,
        method=new.method,
        num_steps=new.num_steps,
        estimate=JobEstimate(
            responses_per_step=responses,
            responses=responses * new.num_steps,
            max_response_tokens=responses * new.num_steps * config.sampling.max_response_tokens,
            memory_bytes=memory,
            flops_per_step=flops,
            flops=None if flops is None else flops * new.num_steps,
        ),
    )


def find_model(session: Session, tenant: str, name: str, settings: Settings) -> tuple[str, Base | None]:
    """The base model that a name stands for, and the checkpoint where it is not the base model itself.

    Raises NotFound for a model that the tenant has not, and Conflict for a checkpoint that holds no whole model.
    """
    if not name.startswith("ft:"):
        planning.find_model(settings.models_dir, name)
        return name, None
    checkpoint, parent = find_fine_tuned(session, tenant, name)
    return parent.model, _base(checkpoint)


def find_fine_tuned(session: Session, tenant: str, name: str) -> tuple[Checkpoint, Job]:
    """The checkpoint that `ft:<base>:<suffix>:<id>` (its final one) or `…:ckpt-step-<n>` names."""
    match = _FINE_TUNED.fullmatch(name)
    job_id = f"ftjob-{match['job']}" if match else ""
    found = artifacts.find_checkpoint(session, tenant, job_id, int(match["step"]) if match and match["step"] else None)
    if match is None or found is None or match["whole"] != model_name(found[1]):
        detail = f"There is no model '{name}'; GET /v1/models lists yours."
        raise NotFound(detail, code="model_not_found", param="model")
    return found


def _choose_checkpoint(session: Session, parent: Job, checkpoint_id: str | None) -> Checkpoint:
    if checkpoint_id is not None:
        checkpoint, owner = artifacts.get_checkpoint(session, parent.tenant, checkpoint_id, param="checkpoint")
        if owner.id != parent.id:
            raise NotFound(
                f"The job has no checkpoint '{checkpoint_id}'.", code="checkpoint_not_found", param="checkpoint"
            )
        return checkpoint
    newest = artifacts.list_checkpoints(session, parent, after=None, limit=1, order="desc").rows
    if not newest:
        raise Conflict("The job has no checkpoint to fork from yet.", code="no_checkpoint")
    return newest[0]


def _base(checkpoint: Checkpoint) -> Base:
    paths = {file["path"] for file in checkpoint.files}
    if "config.json" not in paths:
        raise Conflict(
            "This checkpoint holds low-rank adapters alone; only whole models can be trained on (config.lora.merge).",
            code="checkpoint_holds_adapters",
        )
    return Base(checkpoint_id=checkpoint.id, job_id=checkpoint.job_id, step=checkpoint.step)


def _changed(parent: Job, body: ForkCreate) -> dict[str, Any]:
    """The parent's method with the changes merged in (RFC 7396: null takes a field back to its default)."""
    own = parent.method["reinforcement"]
    if body.training_file or "validation_file" in body.model_fields_set:  # what is held out was meant for those it had
        own = _merge(own, {"config": {"evaluation": {"held_out_share": None}}})
    changed = {
        "grader": body.grader.model_dump() if body.grader else own["grader"],
        "config": _merge(own["config"], body.config),
    }
    try:
        return Reinforcement.model_validate(changed).model_dump()
    except ValidationError as error:
        faults = read_faults(error)
        param = faults[0].pointer[1:].replace("/", ".")
        raise Unprocessable(f"{param}: {faults[0].detail}", param=param, errors=faults) from error


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) and _is_same_kind(target, patch) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged


def _is_same_kind(target: dict[str, Any], patch: dict[str, Any]) -> bool:
    """Another algorithm begins with its own defaults, not with the constants of the one it replaces."""
    return "kind" not in patch or patch["kind"] == target.get("kind")


def _memory(folder: Path, config: TrainConfig) -> tuple[MemoryEstimate | None, float | None]:
    try:
        shape = json.loads((folder / "config.json").read_text())
        on_cpu, on_gpu = (estimate(shape, config, has_gpu=has_gpu) for has_gpu in (False, True))
    except (OSError, ValueError, KeyError):  # a model that names its sizes otherwise is not estimated
        return None, None
    return MemoryEstimate(cpu=on_cpu.total, gpu=on_gpu.total), on_gpu.flops_per_step
