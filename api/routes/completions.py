"""Ask a base model, a fine-tuned one or a checkpoint, in the dialect's words. A worker answers: no model is here."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.sse import format_sse_event

from api import asking
from api.asking import Ask, Asker, News, Piece, Reply
from api.deps import DatabaseDep, ReaderDep, RelayDep, SettingsDep
from api.errors import ServiceError, Unavailable
from api.routes.answers import ChatWording, CompletionWording, Wording
from api.schemas import AskOptions, ChatCompletionCreate, ChatCompletionObject, CompletionCreate, CompletionObject
from api.schemas.completions import DEFAULT_TOKENS
from api.store.completions import new_completion_id
from api.streams import respond

router = APIRouter(prefix="/v1", tags=["Sample"])
OPEN_S = 2.0
"""A stream begins with its first token; a model that needs longer than this is waited for in the open stream."""
COMMENT_S = 5.0
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answers, as JSON or, when asked for, as events", "content": {"text/event-stream": {}}}
}


@router.post("/completions", summary="Go on from a text", response_model=CompletionObject, responses=STREAM)
async def create_completion(
    body: CompletionCreate,
    request: Request,
    caller: ReaderDep,
    database: DatabaseDep,
    relay: RelayDep,
    settings: SettingsDep,
) -> Any:
    """Draws answers from a model, token by token when `stream` is set.

    The first answer after a while takes seconds longer, since the model is loaded: a stream says so in comments, and
    what was not streamed is refused with a Retry-After when it takes too long.
    """
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    ask = _ask(body, [{"prompt": prompt} for prompt in prompts], body.max_tokens, body.logprobs)
    wording = CompletionWording(
        new_completion_id(), body.model, int(time.time()), has_logprobs=body.logprobs is not None
    )
    return await _answer(body, ask, wording, request, Asker(caller, database, relay, settings))


@router.post(
    "/chat/completions", summary="Answer a conversation", response_model=ChatCompletionObject, responses=STREAM
)
async def create_chat_completion(
    body: ChatCompletionCreate,
    request: Request,
    caller: ReaderDep,
    database: DatabaseDep,
    relay: RelayDep,
    settings: SettingsDep,
) -> Any:
    """Draws answers from a model, token by token when `stream` is set.

    The first answer after a while takes seconds longer, since the model is loaded: a stream says so in comments, and
    what was not streamed is refused with a Retry-After when it takes too long.
    """
    messages = [message.model_dump() for message in body.messages]
    num_told = (body.top_logprobs or 0) if body.logprobs else None
    ask = _ask(body, [{"messages": messages}], body.max_completion_tokens or body.max_tokens, num_told)
    wording = ChatWording(new_completion_id(), body.model, int(time.time()), has_logprobs=body.logprobs)
    return await _answer(body, ask, wording, request, Asker(caller, database, relay, settings))


def _ask(options: AskOptions, rows: list[dict[str, Any]], max_tokens: int | None, logprobs: int | None) -> Ask:
    content = {
        "rows": rows,
        "num_samples": options.n,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "max_tokens": max_tokens or DEFAULT_TOKENS,
        "fits_context": max_tokens is None,
        "seed": options.seed,
        "stop": [options.stop] if isinstance(options.stop, str) else options.stop or [],
        "logprobs": logprobs,
        "is_live": options.stream,
    }
    return Ask(options.model, content)


async def _answer(options: AskOptions, ask: Ask, wording: Wording, request: Request, asker: Asker) -> Any:
    news = asking.follow(ask, asker, wording.completion_id)
    if not options.stream:
        async with aclosing(news):
            return await _whole(news, wording, request)
    try:
        first = await _first(news)
    except BaseException:
        await news.aclose()
        raise
    wants_usage = options.stream_options is not None and options.stream_options.include_usage
    return respond(_told(first, news, wording, wants_usage=wants_usage))


async def _whole(news: AsyncIterator[News], wording: Wording, request: Request) -> Any:
    async for each in news:
        if isinstance(each, Reply):
            return wording.whole(each)
        if await request.is_disconnected():
            break
    raise Unavailable("The answer was given up: its reader has left.", code="no_answer")


async def _first(news: AsyncIterator[News]) -> News:
    """The first of an answer, so that a refusal has a status of its own; or the wait, once it has become long."""
    since = time.monotonic()
    async for each in news:
        if isinstance(each, list | Reply) or time.monotonic() - since > OPEN_S:
            return each
    raise Unavailable("The answer ended before it began.", code="no_answer")


async def _told(
    first: News, news: AsyncGenerator[News], wording: Wording, *, wants_usage: bool
) -> AsyncIterator[bytes]:
    said_at = 0.0
    async with aclosing(news):
        try:
            async for each in _chain(first, news):
                for chunk in _chunks(each, wording, wants_usage=wants_usage):
                    yield b"data: " + orjson.dumps(chunk) + b"\n\n"
                    said_at = time.monotonic()
                if isinstance(each, asking.Waiting) and time.monotonic() - said_at > COMMENT_S:
                    yield format_sse_event(comment=each.reason)
                    said_at = time.monotonic()
        except ServiceError as error:  # the status has been sent: clients of the dialect read this instead
            problem = {"message": error.detail, "type": "server_error", "param": error.param, "code": error.code}
            yield b"data: " + orjson.dumps({"error": problem}) + b"\n\n"
        yield b"data: [DONE]\n\n"


def _chunks(news: News, wording: Wording, *, wants_usage: bool) -> Iterator[dict[str, Any]]:
    pieces: list[Piece] = news if isinstance(news, list) else news.rest if isinstance(news, Reply) else []
    for piece in pieces:
        if piece.text or piece.tokens:
            yield wording.chunk(piece) | ({"usage": None} if wants_usage else {})
    if isinstance(news, Reply):
        for index, response in enumerate(news.responses):
            yield wording.last_chunk(index, response["finish"]) | ({"usage": None} if wants_usage else {})
        if wants_usage:
            yield wording.head() | {"choices": [], "usage": wording.usage(news).model_dump()}


async def _chain(first: News, rest: AsyncIterator[News]) -> AsyncIterator[News]:
    yield first
    async for each in rest:
        yield each
