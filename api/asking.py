"""Asks a model: puts a row down for a worker, follows what it draws, and takes the row away again.

The pieces come through the relay and may be lost; the whole answer comes from the row. Whatever was lost is told in
the end, so what a reader gets is the same either way. A reader that leaves takes the row along, which stops the worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from api import admission
from api.errors import Unavailable, Unprocessable
from api.relay import Relay
from api.settings import Settings
from api.store import completions, leases
from api.store.completions import Standing
from api.store.database import Database, Outage
from api.store.keys import Caller

POLL_S = 0.5
"""How often the row is looked at while nothing arrives."""
RETRY_AFTER_S = 10


@dataclass(frozen=True)
class Ask:
    """What a worker is asked, and of which model; `content` is read by `stapo_core.replies`."""

    model: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Waiting:
    """Nothing new yet; why, for people."""

    reason: str


@dataclass(frozen=True)
class Piece:
    """More of one answer: its text, and its tokens where they are told."""

    index: int
    text: str
    tokens: list[dict[str, Any]]


@dataclass(frozen=True)
class Reply:
    """The whole answer, and what of it no piece has told yet."""

    prompt_tokens: int
    responses: list[dict[str, Any]]
    rest: list[Piece]


News = Waiting | list[Piece] | Reply


@dataclass(frozen=True)
class Asker:
    """Who asks, and what an ask goes through."""

    caller: Caller
    database: Database
    relay: Relay
    settings: Settings


async def follow(ask: Ask, asker: Asker, completion_id: str) -> AsyncGenerator[News]:
    """What becomes of an ask, at least twice a second; a Reply is the last. Close it to withdraw the ask.

    Raises NotFound, Conflict and TooManyRequests before it waits, Unprocessable for what the model cannot answer, and
    Unavailable when no worker gives a sign of life for `completion_wait_s`, by the broker or in the row: either may be
    away for a while.
    """
    with asker.relay.waiting_for(completion_id) as queue:
        try:
            await asyncio.to_thread(_put_down, ask, asker, completion_id)
            told, reason = _Told(), "waiting for a worker"
            heard_at = time.monotonic()
            while True:
                message = await _next(queue)
                if message is None or "done" in message:
                    standing = await asyncio.to_thread(_look, asker.database, completion_id)
                    if standing.reply is not None:
                        yield told.complete(standing.reply)
                        return
                    if standing.silent_s is not None:
                        heard_at = max(heard_at, time.monotonic() - standing.silent_s)
                if message is not None:
                    heard_at = time.monotonic()
                    reason = "the model is being loaded" if "stage" in message else "the model is at work"
                pieces = told.take(message) if message is not None else []
                yield pieces or Waiting(reason)
                if time.monotonic() - heard_at > asker.settings.completion_wait_s:
                    raise _unanswered(reason, asker.settings.completion_wait_s)
        finally:
            await asyncio.shield(asyncio.to_thread(_forget, asker.database, completion_id))


@dataclass
class _Told:
    """What the pieces have told so far. Once one is missing, the rest waits for the whole answer."""

    texts: dict[int, str] = field(default_factory=dict)
    num_tokens: dict[int, int] = field(default_factory=dict)
    run: str | None = None
    number: int = 0

    def take(self, message: dict[str, Any]) -> list[Piece]:
        if self.run is None:
            self.run = message["run"]
        if message["run"] != self.run or message["number"] != self.number:
            return []
        self.number += 1
        pieces = [Piece(**piece) for piece in message.get("pieces", [])]
        for piece in pieces:
            self.texts[piece.index] = self.texts.get(piece.index, "") + piece.text
            self.num_tokens[piece.index] = self.num_tokens.get(piece.index, 0) + len(piece.tokens)
        return pieces

    def complete(self, reply: dict[str, Any]) -> Reply:
        if "error" in reply:
            raise Unprocessable(f"The model gave no answer: {reply['error']}.", code="no_answer")
        rest = []
        for index, response in enumerate(reply["responses"]):
            text = self.texts.get(index, "")
            if not response["text"].startswith(text):
                raise Unavailable("Another worker began this answer anew and it came out otherwise.", code="no_answer")
            tokens = (response["logprobs"] or [])[self.num_tokens.get(index, 0) :]
            rest.append(Piece(index, response["text"][len(text) :], tokens))
        return Reply(reply["prompt_tokens"], reply["responses"], rest)


async def _next(queue: asyncio.Queue[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return await asyncio.wait_for(queue.get(), POLL_S)
    except TimeoutError:
        return None


def _put_down(ask: Ask, asker: Asker, completion_id: str) -> None:
    tenant, settings = asker.caller.tenant, asker.settings
    content = ask.content | {"reply_to": asker.relay.channel}
    with asker.database.transaction() as session:
        model, base = admission.find_model(session, tenant, ask.model, settings)
        if not leases.is_worker_alive(session, silent_s=settings.lease_s):
            raise Unavailable("No worker is alive to answer; try again later.", code="no_worker")
        completions.add_completion(session, tenant, model, base, content, completion_id=completion_id)


def _look(database: Database, completion_id: str) -> Standing:
    try:
        with database.transaction() as session:
            return completions.look_at(session, completion_id)
    except Outage:  # the worker draws on, and its answer may be there when the database is back
        return Standing()


def _forget(database: Database, completion_id: str) -> None:
    with suppress(Outage), database.transaction() as session:  # a row that stays is forgotten in its time
        completions.drop_completion(session, completion_id)


def _unanswered(reason: str, waited_s: float) -> Unavailable:
    detail = (
        f"No answer within {waited_s:.0f} s ({reason}); a model that is being loaded will be warm when you ask again."
    )
    return Unavailable(detail, code="no_answer", retry_after_s=RETRY_AFTER_S)
