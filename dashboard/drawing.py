"""Answers while they are drawn: a thread reads each model's stream, and whoever looks sees what has come so far.

Knows the service; draws nothing on a page. A drawing that is stopped, or that nobody looks at, closes its streams, at
which the platform stops drawing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from client.http import ApiError, ApiUnreachable
from dashboard import service
from dashboard.playground import JsonObject, Question, grown

UNSEEN_S = 5.0
"""A page that has been left, or a browser that is gone, does not look any more."""


@dataclass
class Reply:
    """One model's answers so far. They are replaced as they grow and never changed, so they may be read at any time."""

    choices: list[JsonObject]
    error: ApiError | ApiUnreachable | None = None
    is_over: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether anything has been drawn."""
        return any(choice["text"] for choice in self.choices)


class Drawing:
    """A question and the answers of several models to it, all drawn at once from the moment on that this is made."""

    def __init__(self, question: Question, models: Sequence[str]) -> None:
        self.question = question
        self.replies = {model: Reply(question.blank()) for model in models}
        self._began_at = self._seen_at = time.monotonic()
        self._is_stopped = False
        for model in models:
            threading.Thread(target=self._draw, args=(model,), daemon=True).start()

    @property
    def age_s(self) -> float:
        """Seconds since the question was asked."""
        return time.monotonic() - self._began_at

    def look(self) -> bool:
        """Whether more is to come, so that it is worth looking again soon."""
        self._seen_at = time.monotonic()
        return not self._is_stopped and not all(reply.is_over for reply in self.replies.values())

    def stop(self) -> None:
        """Ends every stream at its next piece."""
        self._is_stopped = True

    def _draw(self, model: str) -> None:
        reply = self.replies[model]
        try:
            with service.api() as client, closing(client.stream_completion(self.question.body(model))) as chunks:
                for chunk in chunks:
                    if self._is_stopped or time.monotonic() - self._seen_at > UNSEEN_S:
                        break
                    for piece in chunk["choices"]:
                        reply.choices[piece["index"]] = grown(reply.choices[piece["index"]], piece)
        except (ApiError, ApiUnreachable) as error:
            reply.error = error
        finally:
            reply.is_over = True
