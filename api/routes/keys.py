"""API keys: made and shown once, listed without their text, revoked at once."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter

from api.deps import AdminDep, After, DatabaseDep, Limit, OrderDep
from api.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyObject, ListOf
from api.store import keys

router = APIRouter(prefix="/v1/api_keys", tags=["Platform"])


@router.post("", summary="Make an API key", status_code=HTTPStatus.CREATED)
def create_api_key(body: ApiKeyCreate, caller: AdminDep, database: DatabaseDep) -> ApiKeyCreated:
    """A key of your own tenant; its text is in this answer and nowhere else."""
    with database.transaction() as session:
        row, secret = keys.add_key(
            session, tenant=caller.tenant, name=body.name, scopes=body.scopes, lifetime_s=body.expires_in_s
        )
    return ApiKeyCreated(**ApiKeyObject.of(row).model_dump(), key=secret)


@router.get("", summary="List API keys")
def list_api_keys(
    caller: AdminDep, database: DatabaseDep, after: After = None, limit: Limit = 20, order: OrderDep = "desc"
) -> ListOf[ApiKeyObject]:
    """Your tenant's keys, newest first, revoked ones included."""
    with database.transaction() as session:
        page = keys.list_keys(session, caller.tenant, after=after, limit=limit, order=order)
    data = [ApiKeyObject.of(row) for row in page.rows]
    return ListOf(
        data=data,
        has_more=page.has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.get("/{key_id}", summary="Retrieve an API key")
def retrieve_api_key(key_id: str, caller: AdminDep, database: DatabaseDep) -> ApiKeyObject:
    """What is known of a key."""
    with database.transaction() as session:
        return ApiKeyObject.of(keys.get_key(session, caller.tenant, key_id))


@router.delete("/{key_id}", summary="Revoke an API key")
def revoke_api_key(key_id: str, caller: AdminDep, database: DatabaseDep) -> ApiKeyObject:
    """Ends the key from the next request on; it stays in the list. The key that asks cannot revoke itself."""
    with database.transaction() as session:
        return ApiKeyObject.of(keys.revoke_key(session, caller, key_id))
