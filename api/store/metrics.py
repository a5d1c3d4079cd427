"""Metrics of a job: one row per step and kind, read by range, thinned without losing a spike, or followed live."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from sqlalchemy import Double, Integer, any_, cast, delete, func, literal, select
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from api.store.events import next_seq
from api.store.tables import Job, JobEvent, StepMetrics
from api.store.thinning import Array, survivors

HEADLINES = ("reward/mean", "policy/entropy", "mask/ppm", "eval/reward_mean")
Kind = Literal["train", "evaluation"]


@dataclass(frozen=True)
class MetricsFilter:
    """Which points are wanted: kinds, keys and steps; None means all."""

    kind: Kind | None = None
    keys: Collection[str] | None = None
    from_step: int | None = None
    to_step: int | None = None


def add_metrics(
    session: Session, job: Job, kind: Kind, step: int, values: dict[str, float | None], created_at: datetime
) -> bool:
    """Adds the metrics of one step; False, and nothing changed, when they are there. The job's row must be locked."""
    if session.get(StepMetrics, (job.id, kind, step)) is not None:
        return False
    session.add(
        StepMetrics(
            job_id=job.id,
            kind=kind,
            step=step,
            seq=next_seq(job),
            fence=job.fence,
            created_at=created_at,
            values=values,
        )
    )
    return True


def seconds_spent(session: Session, job: Job, *, above_step: int) -> float:
    """Seconds of work in the recorded train steps above `above_step`, as their trainers measured them."""
    spent = func.sum(StepMetrics.values["speed/step_s"].as_float())
    steps = StepMetrics.job_id == job.id, StepMetrics.kind == "train", StepMetrics.step > above_step
    return float(session.scalar(select(spent).where(*steps)) or 0.0)


def truncate_metrics(session: Session, job: Job, *, above_step: int) -> int:
    """Forgets the steps that the next attempt will do again; returns the tokens trained in those that stay."""
    session.execute(delete(StepMetrics).where(StepMetrics.job_id == job.id, StepMetrics.step > above_step))
    tokens = func.sum(StepMetrics.values["tokens/trained"].as_float())
    return int(session.scalar(select(tokens).where(StepMetrics.job_id == job.id, StepMetrics.kind == "train")) or 0)


def values_at(session: Session, job: Job, step: int) -> dict[str, float | None]:
    """The headline figures of one step, for its checkpoint."""
    rows = session.scalars(select(StepMetrics.values).where(StepMetrics.job_id == job.id, StepMetrics.step == step))
    return {key: values[key] for values in rows for key in HEADLINES if key in values}


def read_metrics(session: Session, job: Job, wanted: MetricsFilter, *, max_points: int | None) -> list[StepMetrics]:
    """The points in the order of the job's sequence; of more than `max_points` about so many, no spike among the lost.

    Long curves are read as columns of numbers, and only the rows that survive as rows: of 100,000 rows of 40 keys the
    whole would take some 10 s to decode.
    """
    query = _query(job, wanted)
    if max_points and count_metrics(session, job, wanted) > max_points:
        seqs, curves = _read_curves(session, query, wanted.keys)
        kept = seqs[survivors(curves, max_points)]
        query = query.where(StepMetrics.seq == any_(array(kept.tolist(), type_=Integer)))
    return list(session.scalars(query.order_by(StepMetrics.seq)))


def read_since(session: Session, job_id: str, seq: int, *, limit: int) -> list[StepMetrics | JobEvent]:
    """Metrics and messages that follow `seq`, in the order of the job's one sequence."""
    metrics = session.scalars(
        select(StepMetrics)
        .where(StepMetrics.job_id == job_id, StepMetrics.seq > seq)
        .order_by(StepMetrics.seq)
        .limit(limit)
    )
    events = session.scalars(
        select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > seq).order_by(JobEvent.seq).limit(limit)
    )
    merged: list[StepMetrics | JobEvent] = [*metrics, *events]
    return sorted(merged, key=lambda row: row.seq)[:limit]


def has_rows_behind(session: Session, job_id: str, seq: int, of: type[StepMetrics] | type[JobEvent]) -> bool:
    """Whether rows of kind `of` follow `seq`."""
    return session.scalar(select(of.seq).where(of.job_id == job_id, of.seq > seq).limit(1)) is not None


def count_metrics(session: Session, job: Job, wanted: MetricsFilter) -> int:
    """How many points there are before thinning."""
    return session.scalar(select(func.count()).select_from(_query(job, wanted).subquery())) or 0


def latest_values(session: Session, job_ids: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest values of each job, by (job id, kind)."""
    rows = session.execute(
        select(StepMetrics.job_id, StepMetrics.kind, StepMetrics.values)
        .where(StepMetrics.job_id.in_(job_ids))
        .order_by(StepMetrics.job_id, StepMetrics.kind, StepMetrics.step.desc())
        .distinct(StepMetrics.job_id, StepMetrics.kind)
    )
    return {(row.job_id, row.kind): row.values for row in rows}


def _query(job: Job, wanted: MetricsFilter) -> Any:
    query = select(StepMetrics).where(StepMetrics.job_id == job.id)
    if wanted.kind is not None:
        query = query.where(StepMetrics.kind == wanted.kind)
    if wanted.from_step is not None:
        query = query.where(StepMetrics.step >= wanted.from_step)
    if wanted.to_step is not None:
        query = query.where(StepMetrics.step <= wanted.to_step)
    return query


_ELEMENT = np.dtype([("size", ">i4"), ("value", ">f8")])
_HEADER_BYTES = 20  # of an array of one dimension in Postgres's binary form (array_send)


def _read_curves(session: Session, query: Any, keys: Collection[str] | None) -> tuple[Array, Array]:
    """The rows' sequence numbers, and a row of values per key; the keys of the first and last when none is named."""
    rows = query.order_by(StepMetrics.seq).subquery()
    if not keys:
        ends = [
            session.scalar(select(rows.c["values"]).order_by(order).limit(1))
            for order in (rows.c.seq, rows.c.seq.desc())
        ]
        keys = {key for values in ends for key in values or {}}
    absent = literal(math.nan, Double)
    columns = [cast(rows.c.seq, Double), *(cast(rows.c["values"][key].astext, Double) for key in sorted(keys))]
    packed = session.execute(
        select(*(func.array_send(func.array_agg(func.coalesce(each, absent))) for each in columns))
    )
    seqs, *curves = (np.frombuffer(each, _ELEMENT, offset=_HEADER_BYTES)["value"] for each in packed.one())
    return seqs.astype(np.int64), np.array(curves, dtype=np.float64)
