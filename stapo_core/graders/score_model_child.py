"""The child of the score_model grader: asks an endpoint of the operator's and reads a score out of its answer.

Knows the chat completions of the dialect. It goes nowhere but to that address: redirects and proxies of the environment
are not followed. What it is sent is foreign text: at most a megabyte is read, and only a number is taken from it.
"""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

from stapo_core.graders.child import Judge, Unjudgeable, serve

_MAX_REPLY_BYTES = 2**20
_MAX_ANSWER_CHARACTERS = 50_000
_MAX_TRIES = 8
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 10.0
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_STEP = {
    "type": "object",
    "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
    "required": ["description", "conclusion"],
    "additionalProperties": False,
}
_SCHEMA = {
    "type": "object",
    "properties": {"steps": {"type": "array", "items": _STEP}, "result": {"type": "number"}},
    "required": ["steps", "result"],
    "additionalProperties": False,
}


class _Again(Exception):
    """The endpoint is not able to answer just now."""

    def __init__(self, kind: str, wait_s: float = 0.0) -> None:
        super().__init__(kind)
        self.kind = kind
        self.wait_s = wait_s


def make_judge(settings: dict[str, Any]) -> Judge:
    """Reads the key and opens the connection."""
    endpoint = _Endpoint(settings["judge"], settings["timeout_s"])
    body = _body(settings)
    low, high = settings["range"]
    hint = _hint(low, high) if settings["judge"]["response_format"] != "json_schema" else []

    def judge(text: str, _: str) -> float:
        return read_score(endpoint.ask(body | {"messages": [*hint, *json.loads(text)]}), low, high)

    return judge


class _Endpoint:
    """One address, asked again while it is too busy or failing and the deadline allows."""

    def __init__(self, judge: dict[str, Any], timeout_s: float) -> None:
        import httpx2

        key = Path(judge["api_key_file"]).read_text().strip() if judge["api_key_file"] else ""
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {}, follow_redirects=False, trust_env=False
        )
        self._url = judge["base_url"].rstrip("/") + "/chat/completions"
        self._timeout_s = timeout_s

    def ask(self, body: dict[str, Any]) -> str:
        """The text of the answer. Raises Unjudgeable."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay

        deadline = time.monotonic() + self._timeout_s
        tries = Retrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_before_delay(self._timeout_s) | stop_after_attempt(_MAX_TRIES),
            wait=_wait_s,
            reraise=True,
        )
        try:
            return read_answer(tries(self._ask_once, body, deadline))
        except _Again as error:
            raise Unjudgeable(error.kind) from error

    def _ask_once(self, body: dict[str, Any], deadline: float) -> bytes:
        import httpx2

        content = b""
        try:
            left_s = max(0.01, deadline - time.monotonic())
            with self._client.stream("POST", self._url, json=body, timeout=left_s) as response:
                _check_status(response.status_code, response.headers.get("retry-after", ""))
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > _MAX_REPLY_BYTES:
                        raise Unjudgeable("reply_too_long")
                    if time.monotonic() > deadline:
                        raise Unjudgeable("timeout")
        except httpx2.TimeoutException as error:
            raise Unjudgeable("timeout") from error
        except httpx2.TransportError as error:
            raise _Again("unreachable") from error
        except httpx2.DecodingError as error:
            raise Unjudgeable("reply_unreadable") from error
        return content


def _check_status(status: int, retry_after: str) -> None:
    if status == 429:
        raise _Again("rate_limited", float(retry_after) if retry_after.isdigit() else 0.0)
    if status >= 500:
        raise _Again("server_error", float(retry_after) if retry_after.isdigit() else 0.0)
    if status >= 400:
        raise Unjudgeable("refused")
    if status >= 300:
        raise Unjudgeable("redirected")


def _wait_s(state: Any) -> float:
    """Twice as long after every try, and as long as the endpoint asked for."""
    error: _Again = state.outcome.exception()
    return max(error.wait_s, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (int(state.attempt_number) - 1)))


def _body(settings: dict[str, Any]) -> dict[str, Any]:
    judge = settings["judge"]
    sampling = dict(settings["sampling"])
    if "max_completions_tokens" in sampling:
        sampling["max_completion_tokens"] = sampling.pop("max_completions_tokens")
    body = {"model": judge["model"], **sampling}
    if judge["response_format"] == "json_schema":
        schema = {"name": "score", "strict": True, "schema": _SCHEMA}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif judge["response_format"] == "json_object":
        body["response_format"] = {"type": "json_object"}
    return body


def _hint(low: float, high: float) -> list[dict[str, str]]:
    """What an endpoint that takes no schema is told."""
    text = (
        'Answer with one JSON object {"steps": [{"description": "...", "conclusion": "..."}], "result": number}; '
        f"result is your score, from {low:g} to {high:g}."
    )
    return [{"role": "system", "content": text}]


def read_answer(reply: bytes) -> str:
    """The text of the first choice. Raises Unjudgeable for what is no completion, and for a refusal."""
    try:
        message = json.loads(reply)["choices"][0]["message"]
        refusal, content = message.get("refusal"), message.get("content")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Unjudgeable("reply_unreadable") from error
    if refusal:
        raise Unjudgeable("refusal")
    if not isinstance(content, str):
        raise Unjudgeable("reply_unreadable")
    return content


def read_score(answer: str, low: float, high: float) -> float:
    """The number under `result`, or `score`, of the answer's last JSON object. Raises Unjudgeable."""
    found = _last_object(answer[-_MAX_ANSWER_CHARACTERS:])
    score = found.get("result", found.get("score"))
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise Unjudgeable("score_unreadable")
    if not low <= score <= high:
        raise Unjudgeable("score_out_of_range")
    return float(score)


def _last_object(text: str) -> dict[str, Any]:
    """The whole text, its last fenced block, or the last object that begins somewhere in it and is none's part."""
    for candidate in (text, *_FENCE.findall(text)[-1:]):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    found: dict[str, Any] | None = None
    place = text.find("{")
    while place >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, place)
            found = value
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)
    if found is None:
        raise Unjudgeable("score_unreadable")
    return found


if __name__ == "__main__":
    serve(make_judge)
