"""A job followed over the wire, from its stream to the display, until it has ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from client.display import RunDisplay
from client.http import Client, ServerSentEvent
from client.objects import JobObject


def watch_job(client: Client, job_id: str, console: Console) -> JobObject:
    """Draws the job from its first step on and returns it when it has ended."""
    job = client.get_job(job_id)
    with RunDisplay(console, job_id) as display:
        display.show_state(str(job["state"]), num_steps=int(job.get("num_steps") or 0))
        for event in client.stream_metrics(job_id):
            _show(display, event)
    return client.get_job(job_id)


def watch_job_as_json(client: Client, job_id: str, write: Callable[[str], None]) -> JobObject:
    """Writes each event of the stream as one line of JSON and returns the job when it has ended."""
    for event in client.stream_metrics(job_id):
        write(json.dumps({"event": event.event, "id": event.id, "data": event.data}))
    return client.get_job(job_id)


def describe_end(job: JobObject) -> str:
    """One or more lines on how the job ended, with what it says of its failure."""
    if job["state"] == "failed":
        error: Mapping[str, Any] = job.get("error") or {}
        evidence = "\n".join(str(line) for line in error.get("evidence") or [])
        stage = f" while {error['stage']}" if error.get("stage") else ""
        return f"{job['id']} failed{stage}: {error.get('message', 'no reason given')}" + (evidence and f"\n{evidence}")
    return f"{job['id']} {job['state']} after {job.get('step', 0)} steps"


def _show(display: RunDisplay, event: ServerSentEvent) -> None:
    data = event.data
    if event.event == "state":
        display.show_state(
            str(data["state"]), step=int(data.get("step") or 0), num_steps=int(data.get("num_steps") or 0)
        )
    elif event.event == "metrics" and data.get("kind") == "evaluation":
        display.show_evaluation(int(data["step"]), data["values"])
    elif event.event == "metrics":
        display.show_step(int(data["step"]), data["values"])
