"""The service from outside: one method per endpoint, plain dicts in and out, typed as client.objects says.

Knows the endpoints and nothing behind them.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast
from urllib.parse import quote

import httpx2

from client import objects
from client.download import OnProgress, download_folder
from client.errors import ApiError, ApiUnreachable, ClientError, DownloadError
from client.wire import ServerSentEvent, Wire

__all__ = ["ApiError", "ApiUnreachable", "Client", "ClientError", "DownloadError", "ServerSentEvent"]

_ANSWER_S = 180.0


class CompletionPiece(TypedDict):
    """More of one answer; the last piece of it says how it ended."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"] | None
    logprobs: objects.CompletionLogprobs | None


class CompletionChunk(TypedDict):
    """One event of a streamed completion, of which docs/openapi.json tells no more than that there are such."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionPiece]
    usage: NotRequired[objects.TokenUsage | None]


class Client(Wire):
    """A connection to one service with one key. Raises ApiError and ApiUnreachable."""

    # --- files and models

    def upload_file(self, path: Path) -> objects.FileObject:
        """Uploads a JSONL file; the answer holds its `id` and `sha256`."""
        with path.open("rb") as file:
            content: dict[str, Any] = {"files": {"file": (path.name, file)}, "data": {"purpose": "fine-tune"}}
            return self._act("/v1/files", None, **content)

    def list_files(self) -> objects.Page[objects.FileObject]:
        """One page with the newest files."""
        return self._call("GET", "/v1/files")

    def all_files(self) -> Iterator[objects.FileObject]:
        """Every file, newest first, page after page."""
        return self._list("/v1/files")

    def validate_file(
        self, file_id: str, *, fields: list[str] | None = None, validation_file: str | None = None
    ) -> objects.FileValidation:
        """The report on a file: what a job would refuse, duplicates, lengths, prompts that the other file has too."""
        params = {"fields": ",".join(fields) if fields else None, "validation_file": validation_file}
        path = f"/v1/files/{quote(file_id, safe='')}/validation"
        return self._call("GET", path, params=params, answer_s=_ANSWER_S)

    def list_models(self) -> objects.Page[objects.ModelObject]:
        """The base models and fine-tuned models that a job may name."""
        return self._call("GET", "/v1/models")

    # --- jobs

    def create_job(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> objects.JobObject:
        """Submits a job. A repeated call with the same key and body gives the first call's answer."""
        return self._act("/v1/fine_tuning/jobs", idempotency_key, json=dict(body))

    def preview_job(self, body: Mapping[str, Any]) -> objects.JobPreview:
        """What `create_job` would make of the same body: resolved, with an estimate, and nothing queued."""
        return self._call("POST", "/v1/fine_tuning/jobs", json=dict(body), params={"dry_run": "true"})

    def fork_job(
        self, job_id: str, changes: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> objects.JobObject:
        """A new job from one of the job's checkpoints; what `changes` does not name is as this job has it."""
        return self._act(_job(job_id, "fork"), idempotency_key, json=dict(changes))

    def update_job(self, job_id: str, changes: Mapping[str, Any]) -> objects.JobObject:
        """Changes the job's name, metadata or priority."""
        return self._call("PATCH", _job(job_id), json=dict(changes))

    def list_jobs(
        self, *, limit: int = 20, after: str | None = None, status: str | None = None
    ) -> objects.Page[objects.JobObject]:
        """One page of jobs, newest first; `after` is the last id of the page before."""
        return self._call("GET", "/v1/fine_tuning/jobs", params={"limit": limit, "after": after, "status": status})

    def get_job(self, job_id: str) -> objects.JobObject:
        """One job."""
        return self._call("GET", _job(job_id))

    def cancel_job(self, job_id: str) -> objects.JobObject:
        """Asks for the job to be cancelled; it is when its state says so."""
        return self._call("POST", _job(job_id, "cancel"), retry=False)

    def pause_job(self, job_id: str) -> objects.JobObject:
        """Asks for the job to stop with a checkpoint and wait."""
        return self._call("POST", _job(job_id, "pause"), retry=False)

    def resume_job(self, job_id: str) -> objects.JobObject:
        """Puts a paused job back into the queue."""
        return self._call("POST", _job(job_id, "resume"), retry=False)

    # --- watching

    def list_events(
        self, job_id: str, *, limit: int = 50, after: str | None = None, order: str = "desc"
    ) -> objects.Page[objects.JobEventObject]:
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
    ) -> objects.MetricsList:
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

    def stream_events(self, job_id: str, *, after: int = 0) -> Iterator[ServerSentEvent]:
        """The job's messages as they come, each once, in the same way."""
        return self._stream(_job(job_id, "events", "stream"), after)

    def stream_log(self, job_id: str, *, after: int = 0) -> Iterator[ServerSentEvent]:
        """The trainer's log as it grows, in the same way; `id` is the byte at which the next piece begins."""
        return self._stream(_job(job_id, "logs", "stream"), after)

    def create_stream_ticket(self, job_id: str) -> objects.StreamTicket:
        """A short-lived ticket that opens this job's streams and downloads to a browser."""
        return self._call("POST", _job(job_id, "stream_ticket"))

    def compare_metrics(
        self, job_ids: list[str], keys: list[str], *, max_points: int | None = None
    ) -> objects.Comparison:
        """The same keys of several jobs in one answer."""
        params = {"jobs": ",".join(job_ids), "keys": ",".join(keys), "max_points": max_points}
        return self._call("GET", "/v1/fine_tuning/metrics/compare", params=params)

    def read_log(self, job_id: str, *, offset: int = 0, max_bytes: int | None = None) -> objects.LogText:
        """Whole lines of the trainer's log from byte `offset`; a negative one counts from the end."""
        return self._call("GET", _job(job_id, "logs"), params={"offset": offset, "max_bytes": max_bytes})

    def probe_grader(self, body: Mapping[str, Any]) -> objects.GraderProbed:
        """Scores a few responses of a model: `grader`, `model`, `training_file`, and how many of how long to draw."""
        path = "/v1/fine_tuning/alpha/graders/probe"
        return self._call("POST", path, json=dict(body), retry=False, answer_s=_ANSWER_S)

    # --- looking inside

    def list_rollouts(self, job_id: str, **wanted: Any) -> objects.Page[objects.RolloutObject]:
        """One page of recorded responses: `step`, `min_reward`, `max_reward`, `masked`, `sort`, `after`, `limit`."""
        params = {name: str(value).lower() if isinstance(value, bool) else value for name, value in wanted.items()}
        return self._call("GET", _job(job_id, "rollouts"), params=params)

    def pin_rollout(self, job_id: str, rollout_id: str, *, pinned: bool) -> objects.RolloutObject:
        """Keeps the step of a recorded response when the oldest are dropped by size, or no longer."""
        path = _job(job_id, "rollouts", quote(rollout_id, safe=""))
        return self._call("PATCH", path, json={"pinned": pinned})

    def get_rollout(self, job_id: str, rollout_id: str) -> objects.RolloutDetail:
        """One recorded response with every token."""
        return self._call("GET", _job(job_id, "rollouts", quote(rollout_id, safe="")))

    def list_masked_tokens(
        self, job_id: str, *, step: int | None = None, sort: str | None = None, limit: int | None = None
    ) -> objects.MaskedTokens:
        """The silenced tokens of a recorded step, ranked, with the text around them."""
        return self._call("GET", _job(job_id, "masked-tokens"), params={"step": step, "sort": sort, "limit": limit})

    def simulate_mask(self, job_id: str, **thresholds: Any) -> objects.MaskSimulation:
        """What other thresholds would silence: `step`, `tau_p`, `entropy_quantile`, `entropy_scope`, `limit`."""
        return self._call("GET", _job(job_id, "mask-simulation"), params=thresholds)

    def count_quadrants(self, job_id: str, *, step: int | None = None) -> objects.TokenQuadrants:
        """A recorded step's tokens by probability and entropy, and the thresholds."""
        return self._call("GET", _job(job_id, "quadrants"), params={"step": step})

    # --- results

    def get_manifest(self, job_id: str) -> objects.Manifest:
        """What the job was made from: config, seed, digests, versions, device."""
        return self._call("GET", _job(job_id, "manifest"))

    def list_checkpoints(self, job_id: str) -> objects.Page[objects.CheckpointObject]:
        """One page with the job's newest checkpoints."""
        return self._call("GET", _job(job_id, "checkpoints"))

    def all_checkpoints(self, job_id: str) -> Iterator[objects.CheckpointObject]:
        """Every checkpoint of the job, newest first, page after page."""
        return self._list(_job(job_id, "checkpoints"))

    def get_checkpoint(self, checkpoint_id: str) -> objects.CheckpointObject:
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

    def ready(self) -> objects.Readiness:
        """What the service says of itself, whether it is ready (`status` is "ok") or not."""
        try:
            return self._call("GET", "/readyz", retry=False)
        except ApiError as error:
            if error.status != 503:
                raise
            return cast(objects.Readiness, error.problem)

    def get_queue(self) -> objects.QueueState:
        """How busy the workers are, and where the tenant's waiting jobs stand."""
        return self._call("GET", "/v1/queue")

    def list_workers(self) -> objects.Page[objects.WorkerObject]:
        """The workers and the jobs that they hold."""
        return self._call("GET", "/v1/workers")

    def get_usage(self, *, created_after: int | None = None, created_before: int | None = None) -> objects.Usage:
        """What the tenant's jobs of that time (seconds since the epoch) took, and the bytes that are kept."""
        params = {"created_after": created_after, "created_before": created_before}
        return self._call("GET", "/v1/usage", params=params)

    def create_api_key(
        self, name: str, *, scopes: Sequence[str] | None = None, expires_in_s: float | None = None
    ) -> objects.ApiKeyCreated:
        """Makes a key; its text, `key`, is in this answer and nowhere else."""
        body = {"name": name, "scopes": scopes, "expires_in_s": expires_in_s}
        given = {field: value for field, value in body.items() if value is not None}
        return self._act("/v1/api_keys", None, json=given)

    def list_api_keys(self, *, limit: int = 20, after: str | None = None) -> objects.Page[objects.ApiKeyObject]:
        """One page of the tenant's keys, newest first, without their text."""
        return self._call("GET", "/v1/api_keys", params={"limit": limit, "after": after})

    def get_api_key(self, key_id: str) -> objects.ApiKeyObject:
        """What is known of one key."""
        return self._call("GET", f"/v1/api_keys/{quote(key_id, safe='')}")

    def revoke_api_key(self, key_id: str) -> objects.ApiKeyObject:
        """Ends a key."""
        return self._call("DELETE", f"/v1/api_keys/{quote(key_id, safe='')}")

    def complete(self, body: Mapping[str, Any]) -> objects.CompletionObject:
        """Goes on from a text: `model`, `prompt`, and how to draw. A model that must be loaded first takes its time."""
        return self._call("POST", "/v1/completions", json=dict(body), retry=False, answer_s=_ANSWER_S)

    def stream_completion(self, body: Mapping[str, Any]) -> Generator[CompletionChunk]:
        """The same answers piece by piece as they are drawn. A broken stream is not taken up again.

        Closing the iterator closes the connection, at which the platform stops drawing. Raises ApiError for what goes
        wrong in the stream too, and ApiUnreachable when the stream breaks.
        """
        return self._stream_once("/v1/completions", json={**body, "stream": True})

    def _act(self, path: str, idempotency_key: str | None, **request: Any) -> Any:
        """A POST that acts once however often it is sent. What it makes may take the service a while."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._call("POST", path, headers=headers, answer_s=_ANSWER_S, **request)


def _job(job_id: str, *rest: str) -> str:
    return "/".join(["/v1/fine_tuning/jobs", quote(job_id, safe=""), *rest])


def _checkpoint(checkpoint_id: str, *rest: str) -> str:
    return "/".join(["/v1/fine_tuning/checkpoints", quote(checkpoint_id, safe=""), *(quote(part) for part in rest)])
