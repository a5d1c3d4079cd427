"""Ask a base model, a fine-tuned one or a checkpoint. A worker answers; this process waits and never loads a model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from api import admission
from api.deps import DatabaseDep, ReaderDep, SettingsDep
from api.errors import Unavailable, Unprocessable
from api.schemas import (
    AskOptions,
    AssistantMessage,
    ChatChoice,
    ChatCompletionCreate,
    ChatCompletionObject,
    CompletionChoice,
    CompletionCreate,
    CompletionObject,
    TokenUsage,
)
from api.schemas.completions import DEFAULT_TOKENS
from api.settings import Settings
from api.store import completions, leases
from api.store.database import Database
from api.store.keys import Caller

router = APIRouter(prefix="/v1", tags=["Sample"])
POLL_S = 0.1
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answers, as JSON or, when asked for, as events", "content": {"text/event-stream": {}}}
}


@router.post("/completions", summary="Go on from a text", response_model=CompletionObject, responses=STREAM)
async def create_completion(
    body: CompletionCreate, caller: ReaderDep, database: DatabaseDep, settings: SettingsDep
) -> Any:
    """Draws answers from a model. The first one after a while takes seconds longer: the model is loaded."""
    asked = Ask(body, {"prompt": body.prompt}, body.max_tokens)
    completion_id, reply = await _answer(asked, caller, database, settings)
    answer = CompletionObject(
        id=completion_id,
        created=int(time.time()),
        model=body.model,
        choices=[
            CompletionChoice(index=index, text=each["text"], finish_reason=each["finish"])
            for index, each in enumerate(reply["responses"])
        ],
        usage=_usage(reply),
    )
    return _events([answer.model_dump()]) if body.stream else answer


@router.post(
    "/chat/completions", summary="Answer a conversation", response_model=ChatCompletionObject, responses=STREAM
)
async def create_chat_completion(
    body: ChatCompletionCreate, caller: ReaderDep, database: DatabaseDep, settings: SettingsDep
) -> Any:
    """Draws answers from a model. The first one after a while takes seconds longer: the model is loaded."""
    messages = [message.model_dump() for message in body.messages]
    asked = Ask(body, {"messages": messages}, body.max_completion_tokens or body.max_tokens)
    completion_id, reply = await _answer(asked, caller, database, settings)
    answer = ChatCompletionObject(
        id=f"chat{completion_id}",
        created=int(time.time()),
        model=body.model,
        choices=[
            ChatChoice(index=index, message=AssistantMessage(content=each["text"]), finish_reason=each["finish"])
            for index, each in enumerate(reply["responses"])
        ],
        usage=_usage(reply),
    )
    return _events(list(_chunks(answer))) if body.stream else answer


class Ask:
    """What a worker is asked, and of which model."""

    def __init__(self, options: AskOptions, row: dict[str, Any], max_tokens: int | None) -> None:
        self.model = options.model
        self.content = {
            "row": row,
            "num_samples": options.n,
            "temperature": options.temperature,
            "max_tokens": max_tokens or DEFAULT_TOKENS,
            "seed": options.seed,
        }


async def _answer(asked: Ask, caller: Caller, database: Database, settings: Settings) -> tuple[str, dict[str, Any]]:
    """Raises Unavailable when nobody answers in time, and Unprocessable for what the model cannot answer."""
    completion_id = await asyncio.to_thread(_put_down, asked, caller, database, settings)
    deadline = time.monotonic() + settings.completion_wait_s
    try:
        while time.monotonic() < deadline:
            reply = await asyncio.to_thread(_look, database, completion_id)
            if reply is not None:
                if "error" in reply:
                    raise Unprocessable(f"The model gave no answer: {reply['error']}.", code="no_answer")
                return completion_id, reply
            await asyncio.sleep(POLL_S)
    finally:
        await asyncio.shield(asyncio.to_thread(_forget, database, completion_id))
    raise Unavailable(f"No worker answered within {settings.completion_wait_s:.0f} s; try again.", code="no_answer")


def _put_down(asked: Ask, caller: Caller, database: Database, settings: Settings) -> str:
    with database.transaction() as session:
        model, base = admission.find_model(session, caller.tenant, asked.model, settings)
        if not leases.is_worker_alive(session, silent_s=settings.lease_s):
            raise Unavailable("No worker is alive to answer; try again later.", code="no_worker")
        return completions.add_completion(session, caller.tenant, model, base, asked.content)


def _look(database: Database, completion_id: str) -> dict[str, Any] | None:
    with database.transaction() as session:
        return completions.fetch_reply(session, completion_id)


def _forget(database: Database, completion_id: str) -> None:
    with database.transaction() as session:
        completions.drop_completion(session, completion_id)


def _usage(reply: dict[str, Any]) -> TokenUsage:
    read, written = reply["prompt_tokens"], sum(each["tokens"] for each in reply["responses"])
    return TokenUsage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def _chunks(answer: ChatCompletionObject) -> Iterator[dict[str, Any]]:
    """Each answer as a chunk with its text and one with its end, as the dialect streams them."""
    head = {"id": answer.id, "object": "chat.completion.chunk", "created": answer.created, "model": answer.model}
    for choice in answer.choices:
        delta = {"role": "assistant", "content": choice.message.content}
        yield head | {"choices": [{"index": choice.index, "delta": delta, "finish_reason": None}]}
        yield head | {"choices": [{"index": choice.index, "delta": {}, "finish_reason": choice.finish_reason}]}


def _events(parts: list[dict[str, Any]]) -> Response:
    lines = [b"data: " + orjson.dumps(part) + b"\n\n" for part in parts]
    return StreamingResponse(iter([*lines, b"data: [DONE]\n\n"]), media_type="text/event-stream")
