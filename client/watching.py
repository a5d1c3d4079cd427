"""A job followed over the wire, from its stream to the display, until it has ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console

from client.display import RunDisplay
from client.http import Client, ServerSentEvent
from client.objects import JobObject

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal would obey


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


def read_whole_log(client: Client, job_id: str, *, follow: bool) -> Iterator[str]:
    """The trainer's log piece by piece, up to now or until the job ends."""
    if follow:
        yield from (event.data["text"] for event in client.stream_log(job_id) if event.event == "log")
        return
    offset, has_more = 0, True
    while has_more:
        part = client.read_log(job_id, offset=offset)
        yield part["text"]
        offset, has_more = part["next_offset"], part["has_more"]


def visible(text: str) -> str:
    """A text for a terminal: control characters are written out."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


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
