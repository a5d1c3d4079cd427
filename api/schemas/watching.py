"""A job's messages, numbers and progress on the wire, in lists and in streams."""

from __future__ import annotations

from typing import Any, Literal

import orjson

from api.lifecycle import JobState
from api.schemas.wire import Wire, epoch
from api.store.metrics import Points
from api.store.tables import JobEvent, StepMetrics


class JobEventObject(Wire):
    """A message of a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    seq: int
    """Place in the job's one sequence, shared with its metrics."""
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message"] = "message"
    kind: str
    """What the message is about: created, state, stage, checkpoint, evaluation, warning, worker_lost, ..."""
    data: dict[str, Any]

    @classmethod
    def of(cls, row: JobEvent) -> JobEventObject:
        """The wire form of a row."""
        return cls(
            id=row.id,
            seq=row.seq,
            created_at=epoch(row.created_at),
            level=row.level,
            message=row.message,
            kind=row.kind,
            data=row.data,
        )


class MetricsPoint(Wire):
    """The metrics of one step."""

    object: Literal["fine_tuning.job.metrics"] = "fine_tuning.job.metrics"
    seq: int
    kind: Literal["train", "evaluation"]
    step: int
    created_at: float
    attempt: int
    values: dict[str, float | None]
    """By `area/name`; null stands for a value that was not finite."""

    @classmethod
    def of(cls, row: StepMetrics) -> MetricsPoint:
        """The wire form of a row."""
        return cls(
            seq=row.seq,
            kind=row.kind,
            step=row.step,
            created_at=row.created_at.timestamp(),
            attempt=row.fence,
            values=row.values,
        )


class MetricsList(Wire):
    """Points in the order of the job's sequence."""

    object: Literal["list"] = "list"
    data: list[MetricsPoint]
    has_more: bool = False
    last_seq: int
    """Follow the stream from here to miss nothing."""
    num_points: int
    """Points before thinning."""


def write_points(points: Points, *, last_seq: int) -> bytes:
    """A MetricsList as JSON, the values passed on as they are stored: no object is built per point."""
    listed = MetricsList(data=[], last_seq=last_seq, num_points=points.num_rows)
    return orjson.dumps(listed.model_dump() | {"data": portray_points(points)})


def portray_points(points: Points) -> list[dict[str, Any]]:
    """Each a MetricsPoint for `orjson.dumps`."""
    return [
        {
            "object": "fine_tuning.job.metrics",
            "seq": point.seq,
            "kind": point.kind,
            "step": point.step,
            "created_at": point.created_at,
            "attempt": point.fence,
            "values": orjson.Fragment(point.values),
        }
        for point in points.data
    ]


class JobProgress(Wire):
    """Where a job stands, as its streams say it."""

    state: JobState
    attempt: int
    stage: str | None
    step: int
    num_steps: int


class StreamTicket(Wire):
    """Opens one job's streams and downloads to a browser."""

    object: Literal["fine_tuning.job.stream_ticket"] = "fine_tuning.job.stream_ticket"
    ticket: str
    expires_at: int
