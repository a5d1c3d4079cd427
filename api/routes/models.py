"""Models that jobs may name: base models, and what a tenant's own jobs have made of them."""

from __future__ import annotations

from fastapi import APIRouter

from api import admission, planning
from api.deps import DatabaseDep, ReaderDep, SettingsDep
from api.schemas import ListOf, ModelObject, epoch, model_name
from api.store import artifacts
from api.store.tables import Checkpoint, Job

router = APIRouter(prefix="/v1/models", tags=["Models"])
MAX_CHECKPOINTS = 1000


@router.get("", summary="List models")
def list_models(caller: ReaderDep, database: DatabaseDep, settings: SettingsDep) -> ListOf[ModelObject]:
    """The base models that the operator allows, by name; then your fine-tuned models and checkpoints, newest first.

    All in one page, up to the newest thousand checkpoints; `has_more` says that there are older ones, which their jobs
    list.
    """
    known = planning.list_models(settings.models_dir)
    data = [
        ModelObject(id=name, created=int(path.stat().st_mtime), owned_by="operator")
        for name, path in sorted(known.items())
    ]
    with database.transaction() as session:
        made = artifacts.newest_checkpoints(session, caller.tenant, limit=MAX_CHECKPOINTS + 1)
    has_more = len(made) > MAX_CHECKPOINTS
    made = made[:MAX_CHECKPOINTS]
    data += [_tuned(model_name(job), row, job) for row, job in made if row.final]
    data += [_tuned(f"{model_name(job)}:ckpt-step-{row.step}", row, job) for row, job in made]
    return ListOf.of(data, has_more=has_more)


@router.get("/{model}", summary="Retrieve a model")
def retrieve_model(model: str, caller: ReaderDep, database: DatabaseDep, settings: SettingsDep) -> ModelObject:
    """A base model, a fine-tuned model of yours, or one of its checkpoints."""
    if model.startswith("ft:"):
        with database.transaction() as session:
            row, job = admission.find_fine_tuned(session, caller.tenant, model)
        return _tuned(model, row, job)
    path = planning.find_model(settings.models_dir, model)
    return ModelObject(id=model, created=int(path.stat().st_mtime), owned_by="operator")


def _tuned(name: str, row: Checkpoint, job: Job) -> ModelObject:
    return ModelObject(id=name, created=epoch(row.created_at), owned_by=job.tenant)
