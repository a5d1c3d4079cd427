"""Prompts and answers, in the dialect's words."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from api.schemas.wire import Wire
from stapo_core.config import Strict

MaxTokens = Annotated[int, Field(ge=1, le=32_768)]
Prompt = Annotated[str, Field(min_length=1, max_length=200_000)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]
DEFAULT_TOKENS = 256
MAX_ANSWERS = 128


class StreamOptions(Strict):
    """What a stream tells besides the text."""

    include_usage: bool = False
    """A last chunk without choices holds the usage."""


class AskOptions(Strict):
    """What both ways to ask have in common."""

    model: str
    """A model of GET /v1/models."""
    n: Annotated[int, Field(ge=1, le=64)] = 1
    """Answers to draw."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """Softmax temperature; 0 takes the likeliest token."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Only the likeliest tokens that together reach this probability may be drawn."""
    max_tokens: MaxTokens | None = None
    """An answer is cut at this many tokens; when omitted at 256, or at what the model's context leaves."""
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    """Up to four strings, any of which ends an answer; its text is cut before them."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """All randomness of the answers follows from it."""
    stream: bool = False
    """Answers as server-sent events, token by token as they are drawn."""
    stream_options: StreamOptions | None = None
    """Only for a stream."""

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream; set stream to true or leave it out")
        return self


class CompletionCreate(AskOptions):
    """A text to go on from."""

    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=64)]
    """The text, or several; choices are counted text by text."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Tell each token's log-probability at temperature 1, and of so many of the likeliest at its place."""

    @model_validator(mode="after")
    def _few_answers(self) -> Self:
        if isinstance(self.prompt, list) and len(self.prompt) * self.n > MAX_ANSWERS:
            raise ValueError(f"at most {MAX_ANSWERS} answers at a time: fewer prompts or a smaller n")
        return self


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
    logprobs: bool = False
    """Tell each token's log-probability at temperature 1."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """And of so many of the likeliest tokens at its place; goes with logprobs."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("set max_tokens or max_completion_tokens, not both")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs; set logprobs to true or leave it out")
        return self


class TokenUsage(Wire):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(Wire):
    """The tokens of an answer, column by column."""

    tokens: list[str]
    token_logprobs: list[float]
    """In nats, at temperature 1."""
    top_logprobs: list[dict[str, float]]
    """The likeliest tokens at each place."""
    text_offset: list[int]
    """Where each token begins in the answer's text."""


class CompletionChoice(Wire):
    """One answer."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: CompletionLogprobs | None = None


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


class LikelyToken(Wire):
    """A token that might have stood there."""

    token: str
    logprob: float
    """In nats, at temperature 1."""
    bytes: list[int] | None
    """In UTF-8; a token may hold a part of a character. Null where the tokenizer does not tell."""


class ChatToken(LikelyToken):
    """A token of an answer."""

    top_logprobs: list[LikelyToken]
    """The likeliest tokens at its place."""


class ChatLogprobs(Wire):
    """The tokens of an answer."""

    content: list[ChatToken]
    refusal: None = None


class ChatChoice(Wire):
    """One answer."""

    index: int
    message: AssistantMessage
    finish_reason: Literal["stop", "length"]
    logprobs: ChatLogprobs | None = None


class ChatCompletionObject(Wire):
    """Answers to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokenUsage
