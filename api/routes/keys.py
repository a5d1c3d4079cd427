"""API keys: made and shown once, listed without their text, revoked at once."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter

from api.deps import AdminDep, After, DatabaseDep, IdempotencyKeyDep, KeyringDep, Limit, OrderDep
from api.errors import Conflict
from api.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyObject, ListOf
from api.store import keys
from api.store.idempotency import Once

router = APIRouter(prefix="/v1/api_keys", tags=["Platform"])


@router.post("", summary="Make an API key", status_code=HTTPStatus.CREATED)
def create_api_key(
    body: ApiKeyCreate, caller: AdminDep, database: DatabaseDep, idempotency_key: IdempotencyKeyDep = None
) -> ApiKeyCreated:
    """A key of your own tenant; its text is in this answer and nowhere else.

    So the same Idempotency-Key cannot give the same answer: it makes no second key, and 409 names the first.
    """
    once = Once.of(caller.tenant, idempotency_key, f"POST {router.prefix} {body.model_dump_json()}")
    with database.transaction() as session:
        stored = once.find_answer(session)
        if stored is not None:
            raise _shown_once(stored)
        row, secret = keys.add_key(
            session, tenant=caller.tenant, name=body.name, scopes=body.scopes, lifetime_s=body.expires_in_s
        )
        answer = ApiKeyObject.of(row).model_dump()
        once.keep_answer(session, HTTPStatus.CREATED, answer)  # without the text, which is stored nowhere
    return ApiKeyCreated(**answer, key=secret)


def _shown_once(stored: dict[str, Any]) -> Conflict:
    return Conflict(
        f"This request has made the key {stored['id']}, whose text was shown once. "
        "If you have not got it, revoke that key and make another under a new Idempotency-Key.",
        code="key_shown_once",
    )


@router.get("", summary="List API keys")
def list_api_keys(
    caller: AdminDep, database: DatabaseDep, after: After = None, limit: Limit = 20, order: OrderDep = "desc"
) -> ListOf[ApiKeyObject]:
    """Your tenant's keys, newest first, revoked ones included."""
    with database.transaction() as session:
        page = keys.list_keys(session, caller.tenant, after=after, limit=limit, order=order)
    return ListOf.of([ApiKeyObject.of(row) for row in page.rows], has_more=page.has_more)


@router.get("/{key_id}", summary="Retrieve an API key")
def retrieve_api_key(key_id: str, caller: AdminDep, database: DatabaseDep) -> ApiKeyObject:
    """What is known of a key."""
    with database.transaction() as session:
        return ApiKeyObject.of(keys.get_key(session, caller.tenant, key_id))


@router.delete("/{key_id}", summary="Revoke an API key")
def revoke_api_key(key_id: str, caller: AdminDep, database: DatabaseDep, keyring: KeyringDep) -> ApiKeyObject:
    """Ends the key and its tickets from the next request on; it stays in the list.

    The key that asks cannot revoke itself.
    """
    with database.transaction() as session:
        row = keys.revoke_key(session, caller, key_id)
    keyring.forget()
    return ApiKeyObject.of(row)
