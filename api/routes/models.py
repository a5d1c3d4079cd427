"""Base models that jobs may name."""

from __future__ import annotations

from fastapi import APIRouter

from api import planning
from api.deps import CallerDep, SettingsDep
from api.schemas import ListOf, ModelObject

router = APIRouter(prefix="/v1/models", tags=["Models"])


@router.get("", summary="List base models")
def list_models(caller: CallerDep, settings: SettingsDep) -> ListOf[ModelObject]:
    """The base models that the operator allows, by name."""
    known = planning.list_models(settings.models_dir)
    data = [
        ModelObject(id=name, created=int(path.stat().st_mtime), owned_by="operator")
        for name, path in sorted(known.items())
    ]
    return ListOf(data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None)


@router.get("/{model}", summary="Retrieve a base model")
def retrieve_model(model: str, caller: CallerDep, settings: SettingsDep) -> ModelObject:
    """One base model."""
    path = planning.find_model(settings.models_dir, model)
    return ModelObject(id=model, created=int(path.stat().st_mtime), owned_by="operator")
