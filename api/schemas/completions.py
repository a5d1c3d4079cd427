"""Prompts and answers, in the dialect's words."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from api.schemas.wire import Wire
from stapo_core.config import Strict

MaxTokens = Annotated[int, Field(ge=1, le=32_768)]
DEFAULT_TOKENS = 256


class AskOptions(Strict):
    """What both ways to ask have in common."""

    model: str
    """A model of GET /v1/models."""
    n: Annotated[int, Field(ge=1, le=64)] = 1
    """Answers to draw."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """Softmax temperature; 0 takes the likeliest token."""
    max_tokens: MaxTokens | None = None
    """An answer is cut at this many tokens; 256 when omitted."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """All randomness of the answers follows from it."""
    stream: bool = False
    """Answers as server-sent events; the text comes in one piece."""


class CompletionCreate(AskOptions):
    """A text to go on from."""

    prompt: Annotated[str, Field(min_length=1, max_length=200_000)]
    """The text."""


class ChatMessage(Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    """Whose turn it is."""
    content: Annotated[str, Field(max_length=200_000)]
    """What is said."""


class ChatCompletionCreate(AskOptions):
    """A conversation to answer."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=200)]
    """The conversation so far; a model without a chat template is given the texts one after another."""
    max_completion_tokens: MaxTokens | None = None
    """The dialect's newer name of max_tokens."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("set max_tokens or max_completion_tokens, not both")
        return self


class TokenUsage(Wire):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChoice(Wire):
    """One answer."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class CompletionObject(Wire):
    """Answers to a prompt."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: TokenUsage


class AssistantMessage(Wire):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Wire):
    """One answer."""

    index: int
    message: AssistantMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatCompletionObject(Wire):
    """Answers to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokenUsage
