"""The service as the pages see it: one client for the process, the browser's way to the API, tickets for a job.

The API key is read here, on the server side of the page, and goes nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import streamlit as st

from client.http import ApiUnreachable, Client
from dashboard.charts import sparkline

JsonObject = dict[str, Any]

_DEFAULT_URL = "http://127.0.0.1:8000"
_TICKET_MARGIN_S = 90.0
_ASK_AGAIN_S = 3.0
_SPARK_KEYS = ("reward/mean", "policy/entropy")
_CALLS_AT_ONCE = 8


@dataclass(frozen=True)
class Ticket:
    """Opens one job's streams and files to a browser until `expires_at` (epoch seconds)."""

    text: str
    expires_at: float


def api_url() -> str:
    """How this process reaches the API."""
    return os.environ.get("STAPO_API_URL", _DEFAULT_URL).rstrip("/")


def public_api_url() -> str:
    """How the reader's browser reaches the API."""
    return os.environ.get("STAPO_PUBLIC_API_URL", "").rstrip("/") or api_url()


@contextmanager
def api() -> Iterator[Client]:
    """The API, for calls that may come from any session of this process. Raises ApiError and ApiUnreachable.

    While the API is silent one caller every few seconds waits for it and all others are told so at once: a page of
    several parts would else spend each part's patience after the other's.
    """
    connection = _connection()
    if connection.silence is not None and time.monotonic() < connection.ask_again_at:
        raise connection.silence
    try:
        yield connection.client
    except ApiUnreachable as error:
        connection.silence, connection.ask_again_at = error, time.monotonic() + _ASK_AGAIN_S
        raise
    connection.silence = None


@dataclass
class _Connection:
    client: Client
    silence: ApiUnreachable | None = None
    ask_again_at: float = 0.0


@st.cache_resource
def _connection() -> _Connection:
    return _Connection(Client(api_url(), _api_key(), timeout_s=10.0))


def disconnect() -> None:
    """Forgets the connection; the next call makes one to the address and with the key that are then set."""
    _connection.clear()


def _api_key() -> str:
    key = os.environ.get("STAPO_API_KEY", "")
    if key:
        return key
    path = os.environ.get("STAPO_API_KEY_FILE", "")
    if not path:
        raise RuntimeError("The dashboard has no API key: set STAPO_API_KEY or STAPO_API_KEY_FILE.")
    return Path(path).read_text(encoding="utf-8").strip()


def job_url(job_id: str) -> str:
    """The job's resource, as the browser reaches it."""
    return f"{public_api_url()}/v1/fine_tuning/jobs/{quote(job_id, safe='')}"


def ticket_for(job_id: str) -> Ticket:
    """A ticket that is good for a while yet: the session's own, or a new one when that is about to lapse."""
    held: dict[str, Ticket] = st.session_state.setdefault("tickets", {})
    ticket = held.get(job_id)
    if ticket is None or ticket.expires_at - time.time() < _TICKET_MARGIN_S:
        with api() as client:
            answer = client.create_stream_ticket(job_id)
        ticket = held[job_id] = Ticket(answer["ticket"], float(answer["expires_at"]))
    return ticket


def download_url(checkpoint_id: str, ticket: Ticket, path: str | None = None) -> str:
    """A link to one file of a checkpoint, or to all of it as a tar archive."""
    tail = "archive" if path is None else f"files/{quote(path)}"
    checkpoint = f"{public_api_url()}/v1/fine_tuning/checkpoints/{quote(checkpoint_id, safe='')}"
    return f"{checkpoint}/{tail}?ticket={quote(ticket.text, safe='')}"


def sparklines(jobs: list[JsonObject]) -> dict[str, dict[str, list[float]]]:
    """The reward and entropy curves of each job in tens of points, by job id; asked for only when a step is new."""
    asked = [(job["id"], int(job["step"] or 0), int(job["attempt"] or 0)) for job in jobs if job["step"]]
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        curves = pool.map(lambda key: _job_sparklines(*key), asked)
        return {job_id: curve for (job_id, _, _), curve in zip(asked, curves, strict=True)}


# `step` and `attempt` are in the key of the cache: a curve is fetched anew when the job has moved.
@st.cache_data(ttl="1h", max_entries=2000, show_spinner=False)
def _job_sparklines(job_id: str, step: int, attempt: int) -> dict[str, list[float]]:
    with api() as client:
        page = client.get_metrics(job_id, keys=list(_SPARK_KEYS), kind="train", max_points=60)
    return {key: sparkline(page["data"], key) for key in _SPARK_KEYS}
