"""Requests to one service with one key: repeated where they may be, refusals raised, streams held through cuts.

Knows HTTP and no endpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from client.errors import ApiError, ApiUnreachable

JsonObject = dict[str, Any]

_RETRY_WAITS_S = (0.2, 0.5, 1.0, 2.0)
_PASSING = {502, 503, 504}
_PAGE = 100
_STREAM_SILENCE_S = 45.0  # the service sends a comment every 15 s
_STREAM_GIVE_UP_S = 120.0


@dataclass(frozen=True)
class ServerSentEvent:
    """One event of a stream; `id` is its place in the job's one sequence, where it has one."""

    event: str
    id: int | None
    data: JsonObject


class Wire:
    """A connection to one service with one key. Raises ApiError and ApiUnreachable."""

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = 30.0) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._timeout_s = timeout_s
        # A proxy in the environment is for the world outside, never for this machine.
        is_local = urlsplit(self.base_url).hostname in {"127.0.0.1", "localhost", "::1"}
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=timeout_s,
            trust_env=not is_local,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(
        self, method: str, path: str, *, retry: bool = True, answer_s: float | None = None, **request: Any
    ) -> Any:
        """The answer as JSON, for which the service has `answer_s` seconds; asked for again where that may help.

        Nothing is asked anew after as long as two usual answers, or the one, may take.
        """
        request["params"] = {name: value for name, value in request.get("params", {}).items() if value is not None}
        give_up_at = time.monotonic() + max(2 * self._timeout_s, answer_s or 0.0)
        num_tries = 0
        while True:
            try:
                return self._request(method, path, answer_s, **request)
            except (ApiError, ApiUnreachable) as error:
                wait = _pause(error, num_tries)
                if not retry or wait is None or time.monotonic() + wait > give_up_at:
                    raise
            time.sleep(wait)
            num_tries += 1

    def _request(self, method: str, path: str, answer_s: float | None, **request: Any) -> JsonObject:
        timeout = httpx2.Timeout(self._timeout_s, read=answer_s or self._timeout_s)
        try:
            return _read(self._http.request(method, path, timeout=timeout, **request))
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx2.TransportError) -> ApiUnreachable:
        is_connected = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        return ApiUnreachable(self.base_url, str(error) or type(error).__name__, is_connected=is_connected)

    def _list(self, path: str) -> Iterator[Any]:
        """The items of a list, page after page as they are read."""
        after = None
        while True:
            page = self._call("GET", path, params={"limit": _PAGE, "after": after})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["last_id"]

    @contextmanager
    def _open(self, path: str, start: int) -> Iterator[httpx2.Response]:
        """One attempt at a file from byte `start`; a broken connection raises httpx2.TransportError."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with self._http.stream("GET", path, headers=headers) as response:
            if response.is_error:
                response.read()
                _read(response)
            yield response

    def _stream(self, path: str, after: int) -> Iterator[ServerSentEvent]:
        last, num_waits = after, 0
        failing_since: float | None = None
        while True:
            try:
                for event in self._read_stream(path, last):
                    num_waits, failing_since = 0, None
                    last = event.id if event.id is not None else last
                    yield event
                    if event.event == "end":
                        return
            except (httpx2.TransportError, ApiError) as error:
                if isinstance(error, ApiError) and _pause(error, 0) is None:
                    raise
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > _STREAM_GIVE_UP_S:
                    raise ApiUnreachable(self.base_url, str(error) or type(error).__name__) from error
            else:
                failing_since = None  # closed in peace: a proxy's limit, or a reader too slow
            time.sleep(_RETRY_WAITS_S[min(num_waits, len(_RETRY_WAITS_S) - 1)])
            num_waits += 1

    def _read_stream(self, path: str, last: int) -> Iterator[ServerSentEvent]:
        """The events of one connection after `last`; a stream that is over (204) is its `end`."""
        headers = {"Last-Event-ID": str(last)} if last else {}
        with self._open_stream(path, headers=headers) as source:
            if source.response.status_code == 204:
                yield ServerSentEvent("end", None, {})
                return
            for raw in source:
                event = _parse(raw, last)
                if event.event == "resync":  # we were slow; what follows is read from the record, and is all there
                    continue
                last = event.id if event.id is not None else last
                yield event

    def _stream_once(self, path: str, **request: Any) -> Generator[Any]:
        """The data of a stream that cannot be resumed and ends with `[DONE]`; an `error` in it is raised."""
        try:
            with self._open_stream(path, method="POST", **request) as source:
                for raw in source:
                    if raw.data == "[DONE]":
                        return
                    data = json.loads(raw.data)
                    if told := data.get("error"):  # the status was sent before it went wrong
                        raise ApiError(source.response.status_code, told | {"detail": told["message"]})
                    yield data
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        raise ApiUnreachable(self.base_url, "the stream ended early", is_connected=True)

    @contextmanager
    def _open_stream(self, path: str, **request: Any) -> Iterator[httpx2.EventSource]:
        """One connection to a stream, which is closed with the block; a refusal is raised."""
        with self._http.sse(path, timeout=httpx2.Timeout(_STREAM_SILENCE_S), **request) as source:
            if source.response.is_error:
                source.response.read()
                _read(source.response)
            yield source


def _read(response: httpx2.Response) -> JsonObject:
    try:
        body = response.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    if response.is_error:
        after = response.headers.get("retry-after", "")
        raise ApiError(response.status_code, body, retry_after_s=float(after) if after.isdecimal() else None)
    return body


def _parse(raw: httpx2.ServerSentEvent, last: int) -> ServerSentEvent:
    """An event that names no id inherits, by the rules of the format, the one before it: that is none of its own."""
    data = raw.json() if raw.data else {}
    number = int(raw.id) if raw.id.isdigit() and int(raw.id) > last else None
    return ServerSentEvent(raw.event, number, data if isinstance(data, dict) else {})


def _pause(error: ApiError | ApiUnreachable, num_tries: int) -> float | None:
    """How long to wait before the same is asked again; None where that would not help."""
    usual = _RETRY_WAITS_S[min(num_tries, len(_RETRY_WAITS_S) - 1)]
    told = error.retry_after_s if isinstance(error, ApiError) else None
    if isinstance(error, ApiError):
        if error.code == "key_in_use" and told is not None:  # the same is at work, and its answer will be ours
            return max(usual, told)
        if error.status not in _PASSING and not (error.status == 429 and told is not None):
            return None
    return max(usual, told or 0.0) if num_tries < len(_RETRY_WAITS_S) else None
