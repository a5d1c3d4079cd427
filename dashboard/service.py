"""The service as the pages see it: one client for the process, the browser's way to the API, tickets for a job.

The API key is read here, on the server side of the page, and goes nowhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import streamlit as st

from client.http import ApiError, ApiUnreachable, Client
from client.objects import CheckpointObject, JobObject, Manifest, MetricsPoint
from dashboard.charts import sparkline

_DEFAULT_URL = "http://127.0.0.1:8000"
_TICKET_MARGIN_S = 90.0
_PATIENCE_S = 10.0
_ASK_AGAIN_S = 3.0
_CALLS_AT_ONCE = 8
_PAGE = 100


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

    While nobody takes a connection there, one caller every few seconds tries and all others are told so at once: a page
    of several parts would else spend each part's patience after the other's. One answer that is slow concerns nobody
    but its own caller.
    """
    connection = _connection()
    if connection.silence is not None and time.monotonic() < connection.ask_again_at:
        raise connection.silence
    try:
        yield connection.client
    except ApiUnreachable as error:
        if not error.is_connected:
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
    return _Connection(Client(api_url(), _api_key(), timeout_s=_PATIENCE_S))


def connect() -> None:
    """Makes ready to speak to the API, without asking it anything. Raises Misconfigured."""
    _connection()


def disconnect() -> None:
    """Forgets the connection; the next call makes one to the address and with the key that are then set."""
    _connection.clear()


class Misconfigured(Exception):
    """The operator has left something out; the text says what to set."""


def _api_key() -> str:
    key = os.environ.get("STAPO_API_KEY", "")
    if key:
        return key
    path = os.environ.get("STAPO_API_KEY_FILE", "")
    if not path:
        raise Misconfigured("The dashboard has no API key: set STAPO_API_KEY or STAPO_API_KEY_FILE.")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Misconfigured(f"The file that STAPO_API_KEY_FILE names cannot be read: {error}") from error


@st.cache_data(ttl=2.0, max_entries=500, show_spinner=False)
def job(job_id: str) -> JobObject:
    """A job as it is now, give or take two seconds: all open pages of it share the answer.

    Raises ApiError and ApiUnreachable.
    """
    with api() as client:
        return client.get_job(job_id)


def find_jobs(*, status: str | None = None, at_most: int = _PAGE) -> tuple[list[JobObject], bool]:
    """The newest jobs, and whether there are more than `at_most`. Raises ApiError and ApiUnreachable."""
    found: list[JobObject] = []
    after = None
    while len(found) < at_most:
        with api() as client:
            page = client.list_jobs(limit=min(_PAGE, at_most - len(found)), after=after, status=status)
        found += page["data"]
        after = page["last_id"]
        if not page["has_more"]:
            return found, False
    return found, True


def forget_jobs() -> None:
    """Something was done to a job: the next page asks anew."""
    job.clear()


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


def forget_ticket(job_id: str) -> None:
    """The ticket is good no longer: the next page gets another."""
    st.session_state.get("tickets", {}).pop(job_id, None)


def metrics_table_url(job_id: str, ticket: Ticket) -> str:
    """A link to all metrics of a job as a table."""
    return f"{job_url(job_id)}/metrics.csv?ticket={quote(ticket.text, safe='')}"


def download_url(checkpoint_id: str, ticket: Ticket, path: str | None = None) -> str:
    """A link to one file of a checkpoint, or to all of it as a tar archive."""
    tail = "archive" if path is None else f"files/{quote(path)}"
    checkpoint = f"{public_api_url()}/v1/fine_tuning/checkpoints/{quote(checkpoint_id, safe='')}"
    return f"{checkpoint}/{tail}?ticket={quote(ticket.text, safe='')}"


def checkpoints(owner: JobObject) -> list[CheckpointObject]:
    """The job's checkpoints, newest first, asked for anew when the job has moved; none while the API is silent."""
    try:
        return _checkpoints(owner["id"], int(owner.get("step") or 0), str(owner["state"]))
    except (ApiError, ApiUnreachable):
        return []


def manifest(owner: JobObject) -> Manifest:
    """What the job was made from, as its present attempt tells it. Raises ApiError and ApiUnreachable."""
    return _manifest(owner["id"], int(owner.get("attempt") or 0), str(owner["state"]))


def sparklines(jobs: Sequence[JobObject]) -> dict[str, dict[str, list[float]]]:
    """The newest stretch of each job's reward and entropy in tens of points, by job id; none where none can be had."""
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        found = pool.map(_sparklines, jobs)
        return {job["id"]: lines for job, lines in zip(jobs, found, strict=True) if lines}


def curves(job: JobObject, keys: list[str]) -> list[MetricsPoint]:
    """The metric rows of a job, thinned to what a chart can show. Raises ApiError and ApiUnreachable."""
    return _newest_rows(job, _Wanted(tuple(keys), max_points=1000))


@dataclass(frozen=True)
class _Wanted:
    """Which rows of a job's metrics: all steps or the newest so many, thinned to `max_points`."""

    keys: tuple[str, ...]
    max_points: int
    kind: str | None = None
    newest_steps: int | None = None


_SPARK = _Wanted(("reward/mean", "policy/entropy"), max_points=60, kind="train", newest_steps=1000)


def _sparklines(job: JobObject) -> dict[str, list[float]]:
    if not job["step"]:
        return {}
    try:
        rows = _newest_rows(job, _SPARK)
    except (ApiError, ApiUnreachable):
        return {}  # a decoration: the list is worth showing without it
    return {key: sparkline(rows, key) for key in _SPARK.keys}


def _newest_rows(job: JobObject, wanted: _Wanted) -> list[MetricsPoint]:
    return _rows(job["id"], int(job["step"] or 0), int(job["attempt"] or 0), wanted)


# The step of a checkpoint is told before the checkpoint is published: what is kept is soon asked for again.
@st.cache_data(ttl=15, max_entries=500, show_spinner=False)
def _checkpoints(job_id: str, step: int, state: str) -> list[CheckpointObject]:
    with api() as client:
        return list(client.all_checkpoints(job_id))


@st.cache_data(ttl="10m", max_entries=500, show_spinner=False)
def _manifest(job_id: str, attempt: int, state: str) -> Manifest:
    with api() as client:
        return client.get_manifest(job_id)


# `step` and `attempt` are in the key of the cache: rows are fetched anew when the job has moved.
@st.cache_data(ttl="1h", max_entries=2000, show_spinner=False)
def _rows(job_id: str, step: int, attempt: int, wanted: _Wanted) -> list[MetricsPoint]:
    from_step = max(0, step - wanted.newest_steps) if wanted.newest_steps else None
    with api() as client:
        return client.get_metrics(
            job_id,
            keys=list(wanted.keys),
            kind=wanted.kind,
            from_step=from_step,
            max_points=wanted.max_points,
        )["data"]
