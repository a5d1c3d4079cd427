"""Long curves without their rows: stretches of SPAN steps are folded once and for all to what is least and greatest.

A stretch is folded when the first step behind it is written; a new attempt unfolds what it takes back. So whatever lies
before the last folded stretch is folded, and the rest is read row by row.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Double, cast, delete, func, literal, or_, select, text
from sqlalchemy.orm import Session

from api.store.tables import CurveBucket, StepBucket, StepMetrics
from api.store.thinning import Array, Curve

SPAN = 256
MAX_VALUES = 150_000
"""So many values are read one by one, which is exact, within some tenths of a second."""
_USUAL_KEYS = 40


@dataclass(frozen=True)
class Range:
    """Some steps of one kind, both ends included, and the keys that are wanted; None means all."""

    job_id: str
    kind: str
    keys: Collection[str] | None
    from_step: int
    to_step: int


@dataclass(frozen=True)
class Survey:
    """The curves of a range, its rows counted, and the numbers of its first and last row, if it has any."""

    wanted: Range
    num_rows: int
    ends: tuple[int, ...]
    curves: Sequence[Curve]
    is_folded: bool


def fold_steps(session: Session, job_id: str, kind: str, *, below_step: int) -> None:
    """Folds whatever is not folded yet below a step; only whole stretches."""
    first, stop = _num_folded(session, job_id, kind), below_step // SPAN
    if stop > first:
        session.flush()
        named = {"job": job_id, "kind": kind, "first": first * SPAN, "stop": stop * SPAN, "span": SPAN}
        session.execute(_FOLD, named)


def unfold_steps(session: Session, job_id: str, *, above_step: int) -> None:
    """Forgets every stretch that holds a step above `above_step`."""
    last = (above_step + 1) // SPAN
    for table in (CurveBucket, StepBucket):
        session.execute(delete(table).where(table.job_id == job_id, table.bucket >= last))


def count_rows(session: Session, wanted: Range) -> int:
    """How many rows a range has."""
    first, stop = _folded_part(session, wanted)
    raw = select(func.count()).select_from(StepMetrics).where(*_of(wanted), _outside(wanted, first, stop))
    folded = select(func.coalesce(func.sum(StepBucket.num_rows), 0)).where(*_within(StepBucket, wanted, first, stop))
    return int(session.scalar(raw) or 0) + int(session.scalar(folded) or 0)


def survey(session: Session, wanted: Range, *, num_rows: int) -> Survey:
    """The curves of a range that has `num_rows` rows."""
    is_folded = num_rows * len(wanted.keys or range(_USUAL_KEYS)) > MAX_VALUES
    first, stop = _folded_part(session, wanted) if is_folded else (0, 0)
    ends, curves = _read_rows(session, wanted, first, stop)
    if stop > first:
        query = select(func.min(StepBucket.first_seq), func.max(StepBucket.last_seq))
        found = session.execute(query.where(*_within(StepBucket, wanted, first, stop))).one()
        ends = [*ends, *(seq for seq in found if seq is not None)]
        for key, folded in _read_buckets(session, wanted, first, stop):
            curves[key] = folded.join(curves[key]) if key in curves else folded
    outer = (min(ends), max(ends)) if ends else ()
    return Survey(wanted, num_rows, outer, [curves[key] for key in sorted(curves)], is_folded)


_FOLD = text("""
WITH rows AS MATERIALIZED (
    SELECT step / :span AS bucket, seq, values FROM step_metrics
    WHERE job_id = :job AND kind = :kind AND step >= :first AND step < :stop
), folded AS (
    INSERT INTO step_buckets (job_id, kind, bucket, num_rows, first_seq, last_seq)
    SELECT :job, :kind, bucket, count(*), min(seq), max(seq) FROM rows GROUP BY bucket ON CONFLICT DO NOTHING
), numbers AS (
    SELECT bucket, seq, key, value::text::float8 AS value FROM rows, jsonb_each(values)
    WHERE jsonb_typeof(value) = 'number'
)
INSERT INTO curve_buckets
    (job_id, kind, key, bucket, least, least_seq, greatest, greatest_seq, total, squares, num_values)
SELECT :job, :kind, key, bucket,
    min(value), (array_agg(seq ORDER BY value, seq))[1],
    max(value), (array_agg(seq ORDER BY value DESC, seq))[1],
    sum(least(greatest(value, -1e150), 1e150)), sum(least(greatest(value, -1e150), 1e150) ^ 2), count(*)
FROM numbers GROUP BY key, bucket ON CONFLICT DO NOTHING
""")  # sums are cut short of what a double can hold: a metric may be as large as it likes


def _num_folded(session: Session, job_id: str, kind: str) -> int:
    """Stretches from the first to the last that is folded."""
    last = select(func.max(StepBucket.bucket)).where(StepBucket.job_id == job_id, StepBucket.kind == kind)
    found = session.scalar(last)
    return 0 if found is None else found + 1


def _folded_part(session: Session, wanted: Range) -> tuple[int, int]:
    """The first folded stretch that lies in the range, and the one behind the last."""
    first = -(-wanted.from_step // SPAN)
    stop = min(_num_folded(session, wanted.job_id, wanted.kind), (wanted.to_step + 1) // SPAN)
    return (first, stop) if stop > first else (0, 0)


def _of(wanted: Range) -> Iterator[Any]:
    yield StepMetrics.job_id == wanted.job_id
    yield StepMetrics.kind == wanted.kind
    yield StepMetrics.step >= wanted.from_step
    yield StepMetrics.step <= wanted.to_step


def _outside(wanted: Range, first: int, stop: int) -> Any:
    """Steps of the range that do not lie in its folded part."""
    if stop == first:
        return literal(True)
    if first * SPAN <= wanted.from_step:
        return StepMetrics.step >= stop * SPAN
    return or_(StepMetrics.step < first * SPAN, StepMetrics.step >= stop * SPAN)


def _within(table: type[StepBucket | CurveBucket], wanted: Range, first: int, stop: int) -> Iterator[Any]:
    yield table.job_id == wanted.job_id
    yield table.kind == wanted.kind
    yield table.bucket >= first
    yield table.bucket < stop


_ELEMENT = np.dtype([("size", ">i4"), ("value", ">f8")])
_HEADER_BYTES = 20  # of an array of one dimension in Postgres's binary form (array_send)


def _read_rows(session: Session, wanted: Range, first: int, stop: int) -> tuple[list[int], dict[str, Curve]]:
    """The first and last row outside the folded part, and every curve there; without keys, those of the two rows."""
    rows = select(StepMetrics).where(*_of(wanted), _outside(wanted, first, stop)).subquery()
    orders = (rows.c.step, rows.c.step.desc())
    found = [session.execute(select(rows.c.seq, rows.c["values"]).order_by(each).limit(1)).first() for each in orders]
    ends = [row for row in found if row is not None]
    if not ends:
        return [], {}
    keys = sorted(wanted.keys or {key for row in ends for key in row[1]})
    absent = literal(math.nan, Double)
    columns = [cast(rows.c.seq, Double), *(cast(rows.c["values"][key].astext, Double) for key in keys)]
    ordered = select(*(func.coalesce(each, absent) for each in columns)).order_by(rows.c.step).subquery()
    seqs, *curves = _read_columns(session, list(ordered.c))
    places = seqs.astype(np.int64)
    return [row[0] for row in ends], {key: Curve.of(curve, places) for key, curve in zip(keys, curves, strict=True)}


def _read_buckets(session: Session, wanted: Range, first: int, stop: int) -> Iterator[tuple[str, Curve]]:
    """Every curve of the folded part."""
    parts = select(CurveBucket).where(*_within(CurveBucket, wanted, first, stop))
    if wanted.keys is not None:
        parts = parts.where(CurveBucket.key.in_(wanted.keys))
    rows = parts.order_by(CurveBucket.key, CurveBucket.bucket).subquery()
    counts = session.execute(select(rows.c.key, func.count()).group_by(rows.c.key).order_by(rows.c.key)).all()
    if not counts:
        return
    names = ("least", "least_seq", "greatest", "greatest_seq", "total", "squares", "num_values")
    columns = list(_read_columns(session, [cast(rows.c[name], Double) for name in names]))
    stops = np.cumsum([count for _, count in counts])
    for (key, count), end in zip(counts, stops.tolist(), strict=True):
        least, least_at, greatest, greatest_at, *sums = (column[end - count : end] for column in columns)
        yield key, Curve(least, least_at.astype(np.int64), greatest, greatest_at.astype(np.int64), *sums)


def _read_columns(session: Session, columns: Sequence[Any]) -> Iterator[Array]:
    """Columns of doubles as arrays: no Python object per value."""
    packed = session.execute(select(*(func.array_send(func.array_agg(each)) for each in columns))).one()
    return (np.frombuffer(each, _ELEMENT, offset=_HEADER_BYTES)["value"].astype(np.float64) for each in packed)
