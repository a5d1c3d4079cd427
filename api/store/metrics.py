"""Metrics of a job: one row per step and kind, read by range, thinned without losing a spike, or followed live."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import orjson
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from api.store import curves
from api.store.curves import Range
from api.store.events import next_seq
from api.store.tables import Job, JobEvent, StepMetrics
from api.store.thinning import survivors

MAX_STEP = 2**31 - 1
HEADLINES = ("reward/mean", "policy/entropy", "mask/ppm", "eval/reward_mean")
Kind = Literal["train", "evaluation"]


@dataclass(frozen=True)
class Point:
    """One step's metrics; `values` is JSON as it is stored, `created_at` in seconds since the epoch."""

    seq: int
    kind: Kind
    step: int
    created_at: float
    fence: int
    values: str


@dataclass(frozen=True)
class Points:
    """Some steps, and how many there were before thinning."""

    data: list[Point]
    num_rows: int


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
    if step % curves.SPAN == 0:
        curves.fold_steps(session, job.id, kind, below_step=step)
    row = {
        "job": job.id,
        "kind": kind,
        "step": step,
        "seq": job.last_seq + 1,
        "fence": job.fence,
        "created_at": created_at,
        "values": orjson.dumps(values).decode(),
    }
    with session.no_autoflush:  # a batch of steps updates its job's row once
        is_new = session.scalar(_ADD, row) is not None
    if is_new:
        next_seq(job)
    return is_new


# Written out, since every step of every run asks it: to build it from its parts takes five times as long as to run it.
_ADD = text("""
INSERT INTO step_metrics (job_id, kind, step, seq, fence, created_at, values)
VALUES (:job, :kind, :step, :seq, :fence, :created_at, cast(:values AS jsonb))
ON CONFLICT (job_id, kind, step) DO NOTHING RETURNING seq""")


def seconds_spent(session: Session, job: Job, *, above_step: int) -> float:
    """Seconds of work in the recorded train steps above `above_step`, as their trainers measured them."""
    spent = func.sum(StepMetrics.values["speed/step_s"].as_float())
    steps = StepMetrics.job_id == job.id, StepMetrics.kind == "train", StepMetrics.step > above_step
    return float(session.scalar(select(spent).where(*steps)) or 0.0)


def truncate_metrics(session: Session, job: Job, *, above_step: int) -> int:
    """Forgets the steps that the next attempt will do again; returns the tokens trained in those that stay."""
    session.execute(delete(StepMetrics).where(StepMetrics.job_id == job.id, StepMetrics.step > above_step))
    curves.unfold_steps(session, job.id, above_step=above_step)
    tokens = func.sum(StepMetrics.values["tokens/trained"].as_float())
    return int(session.scalar(select(tokens).where(StepMetrics.job_id == job.id, StepMetrics.kind == "train")) or 0)


def values_at(session: Session, job: Job, step: int) -> dict[str, float | None]:
    """The headline figures of one step, for its checkpoint."""
    rows = session.scalars(select(StepMetrics.values).where(StepMetrics.job_id == job.id, StepMetrics.step == step))
    return {key: values[key] for values in rows for key in HEADLINES if key in values}


def read_points(session: Session, job: Job, wanted: MetricsFilter, *, max_points: int | None) -> Points:
    """The points in the order of the job's sequence; of more than `max_points` about so many, and no spike is lost.

    Their values stay as they are stored: nothing is decoded that is only passed on.
    """
    chosen, num_rows = _choose(session, job, wanted, max_points)
    named = {
        "job": job.id,
        "kind": wanted.kind,
        "from_step": wanted.from_step or 0,
        "to_step": MAX_STEP if wanted.to_step is None else wanted.to_step,
        "keys": None if wanted.keys is None else sorted(wanted.keys),
        "seqs": None if chosen is None else chosen.seqs,
        "steps": None if chosen is None else chosen.steps,
        "stepped": None if chosen is None else chosen.kind,
    }
    query = _ALL_POINTS if chosen is None else _CHOSEN_POINTS
    return Points([Point(*row) for row in session.execute(query, named)], num_rows)


def read_behind(session: Session, job: Job, wanted: MetricsFilter, seq: int, *, limit: int) -> list[Point]:
    """The next points behind `seq`, up to where the job's sequence stood when its row was read."""
    named = {
        "job": job.id,
        "kind": wanted.kind,
        "keys": None if wanted.keys is None else sorted(wanted.keys),
        "seq": seq,
        "last": job.last_seq,
        "limit": limit,
    }
    return [Point(*row) for row in session.execute(_NEXT_POINTS, named)]


def find_keys(session: Session, job: Job, kind: Kind | None) -> list[str]:
    """Every key that a point of the job has, by the alphabet."""
    return sorted(session.scalars(_KEYS, {"job": job.id, "kind": kind, "last": job.last_seq}))


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


def latest_values(session: Session, job_ids: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest values of each job, by (job id, kind)."""
    rows = session.execute(_LATEST, {"ids": list(job_ids)})
    return {(row.job_id, row.kind): row.newest for row in rows}


# Written out like the statements below, since every look at a job asks it.
_LATEST = text("""
SELECT asked.job_id, kinds.kind, found.newest
FROM unnest(cast(:ids AS text[])) AS asked (job_id), unnest(ARRAY['train', 'evaluation']) AS kinds (kind),
LATERAL (
    SELECT values AS newest FROM step_metrics
    WHERE job_id = asked.job_id AND kind = kinds.kind ORDER BY step DESC LIMIT 1
) AS found""")


@dataclass(frozen=True)
class _Chosen:
    """What thinning leaves: rows by their numbers, and some steps of one kind besides."""

    seqs: list[int]
    kind: str | None
    steps: list[int]


# The values of some keys are written as JSON by Postgres: what is not needed is neither sent nor decoded.
_POINT = """SELECT seq, kind, step, extract(epoch FROM created_at)::float8, fence,
CASE WHEN cast(:keys AS text[]) IS NULL THEN values::text ELSE coalesce((
    SELECT '{' || string_agg(to_json(key)::text || ':' || (values -> key)::text, ',') || '}'
    FROM unnest(cast(:keys AS text[])) AS key WHERE values ? key
), '{}') END"""
_ALL_POINTS = text(f"""{_POINT} FROM step_metrics
WHERE job_id = :job AND (cast(:kind AS text) IS NULL OR kind = :kind) AND step >= :from_step AND step <= :to_step
ORDER BY seq""")  # of our own constants
_CHOSEN_POINTS = text(f"""{_POINT} FROM step_metrics
WHERE job_id = :job AND (seq = ANY(:seqs) OR (kind = :stepped AND step = ANY(:steps))) ORDER BY seq""")

_OF_KIND = "(cast(:kind AS text) IS NULL OR kind = :kind)"
_NEXT_POINTS = text(f"""{_POINT} FROM step_metrics
WHERE job_id = :job AND {_OF_KIND} AND seq > :seq AND seq <= :last ORDER BY seq LIMIT :limit""")
_KEYS = text(f"""SELECT DISTINCT key FROM step_metrics, jsonb_object_keys(values) AS key
WHERE job_id = :job AND {_OF_KIND} AND seq <= :last""")  # noqa: S608  # of our own constants


def _ranges(job: Job, wanted: MetricsFilter) -> list[Range]:
    kinds: tuple[Kind, ...] = ("train", "evaluation") if wanted.kind is None else (wanted.kind,)
    first, last = wanted.from_step or 0, MAX_STEP if wanted.to_step is None else wanted.to_step
    return [Range(job.id, kind, wanted.keys, first, last) for kind in kinds]


def _choose(session: Session, job: Job, wanted: MetricsFilter, max_points: int | None) -> tuple[_Chosen | None, int]:
    """What thinning leaves of the points that are wanted, None for all of them; and how many there are before."""
    extents = [curves.measure(session, each) for each in _ranges(job, wanted)]
    num_rows = sum(each.num_rows for each in extents)
    if not max_points or num_rows <= max_points:
        return None, num_rows
    surveys = [curves.survey(session, each) for each in extents if each.num_rows]
    ends = sorted(end for each in surveys for end in each.ends)
    ends = [*ends[:1], *ends[-1:]]
    kept = survivors([curve for each in surveys for curve in each.curves], ends, max_points)
    longest = max(extents, key=lambda each: each.num_rows)
    num_free = max_points - len(kept)
    if longest.is_short or num_free <= 0:
        return _Chosen(kept.tolist(), None, []), num_rows
    # Few extremes were folded out of many rows: what room is left goes to steps at even distances.
    first, last = max(longest.wanted.from_step, 1), min(longest.wanted.to_step, job.step)
    even = np.unique(np.linspace(first, last, num_free).astype(np.int64))
    return _Chosen(kept.tolist(), longest.wanted.kind, even.tolist()), num_rows
