"""The service from outside: one method per endpoint, plain dicts in and out.

Knows the wire and nothing behind it. Calls that may be repeated are, when the service cannot be reached or says 503.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx2

from client.download import OnProgress, download_folder
from client.errors import ApiError, ApiUnreachable, ClientError, DownloadError

__all__ = ["ApiError", "ApiUnreachable", "Client", "ClientError", "DownloadError", "ServerSentEvent"]

JsonObject = dict[str, Any]

_RETRY_WAITS_S = (0.2, 0.5, 1.0, 2.0)
_MAX_RETRY_AFTER_S = 10.0
_STREAM_SILENCE_S = 45.0  # the service sends a comment every 15 s
_STREAM_GIVE_UP_S = 120.0


@dataclass(frozen=True)
class ServerSentEvent:
    """One event of a stream; `id` is its place in the job's one sequence, where it has one."""

    event: str
    id: int | None
    data: JsonObject


class Client:
    """A connection to one service with one key. Raises ApiError and ApiUnreachable."""

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = 30.0) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        # A proxy in the environment is for the world outside, never for this machine.
        is_local = urlsplit(self.base_url).hostname in {"127.0.0.1", "localhost", "::1"}
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=timeout_s,
            trust_env=not is_local,
        )

    # --- files and models

    def upload_file(self, path: Path) -> JsonObject:
        """Uploads a JSONL file; the answer holds its `id` and `sha256`."""
        with path.open("rb") as file:
            return self._call(
                "POST", "/v1/files", files={"file": (path.name, file)}, data={"purpose": "fine-tune"}, retry=False
            )

    def list_files(self) -> JsonObject:
        """The newest files."""
        return self._call("GET", "/v1/files")

    def validate_file(
        self, file_id: str, *, fields: list[str] | None = None, validation_file: str | None = None
    ) -> JsonObject:
        """The report on a file: what a job would refuse, duplicates, lengths, prompts that the other file has too."""
        params = {"fields": ",".join(fields) if fields else None, "validation_file": validation_file}
        return self._call("GET", f"/v1/files/{quote(file_id, safe='')}/validation", params=params)

    def list_models(self) -> JsonObject:
        """The base models and fine-tuned models that a job may name."""
        return self._call("GET", "/v1/models")

    # --- jobs

    def create_job(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> JsonObject:
        """Submits a job. A repeated call with the same key and body gives the first call's answer."""
        key = idempotency_key or uuid.uuid4().hex
        return self._call("POST", "/v1/fine_tuning/jobs", json=dict(body), headers={"Idempotency-Key": key})

    def preview_job(self, body: Mapping[str, Any]) -> JsonObject:
        """What `create_job` would make of the same body: resolved, with an estimate, and nothing queued."""
        return self._call("POST", "/v1/fine_tuning/jobs", json=dict(body), params={"dry_run": "true"})

    def fork_job(self, job_id: str, changes: Mapping[str, Any], *, idempotency_key: str | None = None) -> JsonObject:
        """A new job from one of the job's checkpoints; what `changes` does not name is as this job has it."""
        key = idempotency_key or uuid.uuid4().hex
        return self._call("POST", _job(job_id, "fork"), json=dict(changes), headers={"Idempotency-Key": key})

    def update_job(self, job_id: str, changes: Mapping[str, Any]) -> JsonObject:
        """Changes the job's name, metadata or priority."""
        return self._call("PATCH", _job(job_id), json=dict(changes))

    def list_jobs(self, *, limit: int = 20, after: str | None = None, status: str | None = None) -> JsonObject:
        """One page of jobs, newest first; `after` is the last id of the page before."""
        return self._call("GET", "/v1/fine_tuning/jobs", params={"limit": limit, "after": after, "status": status})

    def get_job(self, job_id: str) -> JsonObject:
        """One job."""
        return self._call("GET", _job(job_id))

    def cancel_job(self, job_id: str) -> JsonObject:
        """Asks for the job to be cancelled; it is when its state says so."""
        return self._call("POST", _job(job_id, "cancel"), retry=False)

    def pause_job(self, job_id: str) -> JsonObject:
        """Asks for the job to stop with a checkpoint and wait."""
        return self._call("POST", _job(job_id, "pause"), retry=False)

    def resume_job(self, job_id: str) -> JsonObject:
        """Puts a paused job back into the queue."""
        return self._call("POST", _job(job_id, "resume"), retry=False)

    # --- watching

    def list_events(self, job_id: str, *, limit: int = 50, after: str | None = None, order: str = "desc") -> JsonObject:
        """One page of the job's events."""
        return self._call("GET", _job(job_id, "events"), params={"limit": limit, "after": after, "order": order})

    def get_metrics(  # the endpoint's own parameters
        self,
        job_id: str,
        *,
        keys: list[str] | None = None,
        kind: str | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int | None = None,
    ) -> JsonObject:
        """Metrics so far, ascending; `last_seq` is where `stream_metrics` may go on."""
        params = {
            "keys": ",".join(keys) if keys else None,
            "kind": kind,
            "from_step": from_step,
            "to_step": to_step,
            "max_points": max_points,
        }
        return self._call("GET", _job(job_id, "metrics"), params=params)

    def stream_metrics(self, job_id: str, *, after: int = 0) -> Iterator[ServerSentEvent]:
        """Metrics as they come, each once: reconnects by itself, ends after the event `end`."""
        return self._stream(_job(job_id, "metrics", "stream"), after)

    def create_stream_ticket(self, job_id: str) -> JsonObject:
        """A short-lived ticket that opens this job's streams and downloads to a browser."""
        return self._call("POST", _job(job_id, "stream_ticket"))

    def compare_metrics(self, job_ids: list[str], keys: list[str], *, max_points: int | None = None) -> JsonObject:
        """The same keys of several jobs in one answer."""
        params = {"jobs": ",".join(job_ids), "keys": ",".join(keys), "max_points": max_points}
        return self._call("GET", "/v1/fine_tuning/metrics/compare", params=params)

    def read_log(self, job_id: str, *, offset: int = 0, max_bytes: int | None = None) -> JsonObject:
        """Whole lines of the trainer's log from byte `offset`; a negative one counts from the end."""
        return self._call("GET", _job(job_id, "logs"), params={"offset": offset, "max_bytes": max_bytes})

    # --- looking inside

    def list_rollouts(self, job_id: str, **wanted: Any) -> JsonObject:
        """One page of recorded responses: `step`, `min_reward`, `max_reward`, `masked`, `sort`, `after`, `limit`."""
        params = {name: str(value).lower() if isinstance(value, bool) else value for name, value in wanted.items()}
        return self._call("GET", _job(job_id, "rollouts"), params=params)

    def get_rollout(self, job_id: str, rollout_id: str) -> JsonObject:
        """One recorded response with every token."""
        return self._call("GET", _job(job_id, "rollouts", quote(rollout_id, safe="")))

    def list_masked_tokens(
        self, job_id: str, *, step: int | None = None, sort: str | None = None, limit: int | None = None
    ) -> JsonObject:
        """The silenced tokens of a recorded step, ranked, with the text around them."""
        return self._call("GET", _job(job_id, "masked-tokens"), params={"step": step, "sort": sort, "limit": limit})

    def simulate_mask(self, job_id: str, **thresholds: Any) -> JsonObject:
        """What other thresholds would silence: `step`, `tau_p`, `entropy_quantile`, `entropy_scope`, `limit`."""
        return self._call("GET", _job(job_id, "mask-simulation"), params=thresholds)

    def count_quadrants(self, job_id: str, *, step: int | None = None) -> JsonObject:
        """A recorded step's tokens by probability and entropy, and the thresholds."""
        return self._call("GET", _job(job_id, "quadrants"), params={"step": step})

    # --- results

    def get_manifest(self, job_id: str) -> JsonObject:
        """What the job was made from: config, seed, digests, versions, device."""
        return self._call("GET", _job(job_id, "manifest"))

    def list_checkpoints(self, job_id: str) -> JsonObject:
        """The job's checkpoints, newest first."""
        return self._call("GET", _job(job_id, "checkpoints"))

    def get_checkpoint(self, checkpoint_id: str) -> JsonObject:
        """One checkpoint with the list of its files."""
        return self._call("GET", _checkpoint(checkpoint_id))

    def download_checkpoint(self, checkpoint_id: str, folder: Path, *, on_progress: OnProgress | None = None) -> Path:
        """Makes `folder` from the checkpoint's files, whole or not at all; goes on where a broken download stopped.

        Every file is checked against the sha256 of the checkpoint. Raises DownloadError when one does not match.
        """
        files = self.get_checkpoint(checkpoint_id)["files"]

        def fetch(path: str, start: int) -> AbstractContextManager[httpx2.Response]:
            return self._open(_checkpoint(checkpoint_id, "files", path), start)

        return download_folder(files, folder, fetch, on_progress)

    # --- the platform

    def ready(self) -> JsonObject:
        """What the service says of itself, whether it is ready (`status` is "ok") or not."""
        try:
            return self._call("GET", "/readyz", retry=False)
        except ApiError as error:
            if error.status != 503:
                raise
            return error.problem

    def get_queue(self) -> JsonObject:
        """How busy the workers are, and where the tenant's waiting jobs stand."""
        return self._call("GET", "/v1/queue")

    def list_workers(self) -> JsonObject:
        """The workers and the jobs that they hold."""
        return self._call("GET", "/v1/workers")

    def get_usage(self) -> JsonObject:
        """What the tenant has used, and the bytes that are kept."""
        return self._call("GET", "/v1/usage")

    def complete(self, body: Mapping[str, Any]) -> JsonObject:
        """Goes on from a text: `model`, `prompt`, and how to draw."""
        return self._call("POST", "/v1/completions", json=dict(body), retry=False)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the wire

    def _call(self, method: str, path: str, *, retry: bool = True, **request: Any) -> JsonObject:
        params = {name: value for name, value in request.pop("params", {}).items() if value is not None}
        waits = iter(_RETRY_WAITS_S if retry else ())
        while True:
            wait = next(waits, None)
            try:
                response = self._http.request(method, path, params=params, **request)
            except httpx2.TransportError as error:
                if wait is None:
                    raise ApiUnreachable(self.base_url, _reason(error)) from error
            else:
                if response.status_code != 503 or wait is None:
                    return _read(response)
                wait = max(wait, _retry_after(response))
            time.sleep(wait)

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
                if isinstance(error, ApiError) and error.status != 503:
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
        timeout = httpx2.Timeout(_STREAM_SILENCE_S)
        with self._http.sse(path, headers=headers, timeout=timeout) as source:
            if source.response.status_code == 204:
                yield ServerSentEvent("end", None, {})
                return
            if source.response.is_error:
                source.response.read()
                _read(source.response)
            for raw in source:
                event = _parse(raw, last)
                if event.event == "resync":
                    return
                last = event.id if event.id is not None else last
                yield event


def _job(job_id: str, *rest: str) -> str:
    return "/".join(["/v1/fine_tuning/jobs", quote(job_id, safe=""), *rest])


def _checkpoint(checkpoint_id: str, *rest: str) -> str:
    return "/".join(["/v1/fine_tuning/checkpoints", quote(checkpoint_id, safe=""), *(quote(part) for part in rest)])


def _read(response: httpx2.Response) -> JsonObject:
    try:
        body = response.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    if response.is_error:
        raise ApiError(response.status_code, body)
    return body


def _parse(raw: httpx2.ServerSentEvent, last: int) -> ServerSentEvent:
    """An event that names no id inherits, by the rules of the format, the one before it: that is none of its own."""
    data = raw.json() if raw.data else {}
    number = int(raw.id) if raw.id.isdigit() and int(raw.id) > last else None
    return ServerSentEvent(raw.event, number, data if isinstance(data, dict) else {})


def _retry_after(response: httpx2.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdigit() else 0.0


def _reason(error: httpx2.TransportError) -> str:
    return str(error) or type(error).__name__
