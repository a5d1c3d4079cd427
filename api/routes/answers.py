"""How an answer is worded in the dialect: whole, or chunk by chunk. Knows no request and no row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from api.asking import Piece, Reply
from api.schemas import (
    AssistantMessage,
    ChatChoice,
    ChatCompletionObject,
    ChatLogprobs,
    ChatToken,
    CompletionChoice,
    CompletionLogprobs,
    CompletionObject,
    LikelyToken,
    TokenUsage,
)

Told = list[dict[str, Any]]


class Wording(Protocol):
    """One of the two ways in which the dialect words an answer."""

    completion_id: str

    def whole(self, reply: Reply) -> Any:
        """The answer as one object."""
        ...

    def head(self) -> dict[str, Any]:
        """What all chunks have in common."""
        ...

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """More of one answer."""
        ...

    def last_chunk(self, index: int, finish: str) -> dict[str, Any]:
        """How one answer ended."""
        ...

    def usage(self, reply: Reply) -> TokenUsage:
        """Tokens read and written."""
        ...


@dataclass
class _Worded:
    completion_id: str
    model: str
    created: int
    has_logprobs: bool
    lengths: dict[int, int] = field(default_factory=dict)
    """Characters told of each answer."""

    def usage(self, reply: Reply) -> TokenUsage:
        """Tokens read and written."""
        read, written = reply.prompt_tokens, sum(each["tokens"] for each in reply.responses)
        return TokenUsage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)

    def _is_begun(self, index: int) -> bool:
        return index in self.lengths


class CompletionWording(_Worded):
    """Going on from a text."""

    def whole(self, reply: Reply) -> CompletionObject:
        """The answer as one object."""
        choices = [
            CompletionChoice(
                index=index,
                text=each["text"],
                finish_reason=each["finish"],
                logprobs=_columns(each["logprobs"], 0) if self.has_logprobs else None,
            )
            for index, each in enumerate(reply.responses)
        ]
        return CompletionObject(
            id=self.completion_id, created=self.created, model=self.model, choices=choices, usage=self.usage(reply)
        )

    def head(self) -> dict[str, Any]:
        """What all chunks have in common."""
        return {"id": self.completion_id, "object": "text_completion", "created": self.created, "model": self.model}

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """More of one answer."""
        begins = self.lengths.get(piece.index, 0)
        self.lengths[piece.index] = begins + sum(len(token["token"]) for token in piece.tokens)
        told = _columns(piece.tokens, begins).model_dump() if self.has_logprobs else None
        return self._chunk(piece.index, piece.text, told, None)

    def last_chunk(self, index: int, finish: str) -> dict[str, Any]:
        """How one answer ended."""
        return self._chunk(index, "", None, finish)

    def _chunk(self, index: int, text: str, logprobs: Any, finish: str | None) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return self.head() | {"choices": [choice]}


class ChatWording(_Worded):
    """Answering a conversation."""

    def whole(self, reply: Reply) -> ChatCompletionObject:
        """The answer as one object."""
        choices = [
            ChatChoice(
                index=index,
                message=AssistantMessage(content=each["text"]),
                finish_reason=each["finish"],
                logprobs=_rows(each["logprobs"]) if self.has_logprobs else None,
            )
            for index, each in enumerate(reply.responses)
        ]
        return ChatCompletionObject(
            id=f"chat{self.completion_id}",
            created=self.created,
            model=self.model,
            choices=choices,
            usage=self.usage(reply),
        )

    def head(self) -> dict[str, Any]:
        """What all chunks have in common."""
        completion_id = f"chat{self.completion_id}"
        return {"id": completion_id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """More of one answer; the first says who speaks."""
        return self._chunk(piece.index, {"content": piece.text}, piece.tokens, None)

    def last_chunk(self, index: int, finish: str) -> dict[str, Any]:
        """How one answer ended."""
        return self._chunk(index, {}, [], finish)

    def _chunk(self, index: int, delta: dict[str, Any], tokens: Told, finish: str | None) -> dict[str, Any]:
        if not self._is_begun(index):
            self.lengths[index] = 0
            delta = {"role": "assistant", "content": ""} | delta
        told = _rows(tokens).model_dump() if self.has_logprobs and tokens else None
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish}
        return self.head() | {"choices": [choice]}


def _columns(tokens: Told, begins: int) -> CompletionLogprobs:
    texts = [token["token"] for token in tokens]
    offsets = [begins + sum(map(len, texts[:place])) for place in range(len(texts))]
    return CompletionLogprobs(
        tokens=texts,
        token_logprobs=[token["logprob"] for token in tokens],
        top_logprobs=[{each["token"]: each["logprob"] for each in token["top"]} for token in tokens],
        text_offset=offsets,
    )


def _rows(tokens: Told) -> ChatLogprobs:
    return ChatLogprobs(
        content=[
            ChatToken(
                token=token["token"],
                logprob=token["logprob"],
                bytes=token["bytes"],
                top_logprobs=[LikelyToken(**each) for each in token["top"]],
            )
            for token in tokens
        ]
    )
