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
from sqlalchemy import ARRAY, Double, String, any_, cast, delete, func, literal, or_, select, text
from sqlalchemy.orm import Session

from api.store.tables import CurveBucket, StepBucket, StepMetrics
from api.store.thinning import Array, Curve

SPAN = 256
MAX_VALUES = 20_000
"""So many values are read one by one, which is exact, within some hundredths of a second."""
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
class Extent:
    """How a range is stored: which stretches of it are folded, the rest being rows, and how many rows it has in all."""

    wanted: Range
    first: int
    """The first folded stretch."""
    stop: int
    """The one behind the last; the same as the first where none is folded."""
    num_rows: int
    ends: tuple[int, ...]
    """The numbers of the first and last row of the folded part."""

    @property
    def is_short(self) -> bool:
        """Whether its rows can as well be read one by one."""
        return self.num_rows * len(self.wanted.keys or range(_USUAL_KEYS)) <= MAX_VALUES


@dataclass(frozen=True)
class Survey:
    """The curves of a range, and the numbers of its first and last row."""

    ends: tuple[int, int]
    curves: Sequence[Curve]


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


def measure(session: Session, wanted: Range) -> Extent:
    """How long a range is, without reading it."""
    first = -(-wanted.from_step // SPAN)
    stop = min(_num_folded(session, wanted.job_id, wanted.kind), (wanted.to_step + 1) // SPAN)
    if stop <= first:
        first = stop = 0
    num_rows = session.scalar(select(func.count()).select_from(StepMetrics).where(*_rows_of(wanted, first, stop))) or 0
    if stop == first:
        return Extent(wanted, first, stop, num_rows, ())
    columns = func.sum(StepBucket.num_rows), func.min(StepBucket.first_seq), func.max(StepBucket.last_seq)
    row = session.execute(select(*columns).where(*_buckets_of(StepBucket, wanted, first, stop))).one()
    num_folded, *ends = row
    return Extent(wanted, first, stop, num_rows + int(num_folded or 0), tuple(end for end in ends if end is not None))


def survey(session: Session, extent: Extent) -> Survey:
    """The curves of a range that has rows."""
    wanted, first, stop, ends = extent.wanted, extent.first, extent.stop, list(extent.ends)
    if extent.is_short:
        first, stop, ends = 0, 0, []
    places, curves = _read_rows(session, wanted, first, stop)
    ends += places
    if stop > first:
        for key, folded in _read_buckets(session, wanted, first, stop):
            curves[key] = folded.join(curves[key]) if key in curves else folded
    return Survey((min(ends), max(ends)), [curves[key] for key in sorted(curves)])


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


def _rows_of(wanted: Range, first: int, stop: int) -> Iterator[Any]:
    """The rows of the range that do not lie in its folded part."""
    yield StepMetrics.job_id == wanted.job_id
    yield StepMetrics.kind == wanted.kind
    yield StepMetrics.step >= wanted.from_step
    yield StepMetrics.step <= wanted.to_step
    if stop > first:
        yield or_(StepMetrics.step < first * SPAN, StepMetrics.step >= stop * SPAN)


def _buckets_of(table: type[StepBucket | CurveBucket], wanted: Range, first: int, stop: int) -> Iterator[Any]:
    yield table.job_id == wanted.job_id
    yield table.kind == wanted.kind
    yield table.bucket >= first
    yield table.bucket < stop


_ELEMENT = np.dtype([("size", ">i4"), ("value", ">f8")])
_HEADER_BYTES = 20  # of an array of one dimension in Postgres's binary form (array_send)


def _read_rows(session: Session, wanted: Range, first: int, stop: int) -> tuple[list[int], dict[str, Curve]]:
    """The first and last row outside the folded part, and every curve there; without keys, those of the two rows."""
    rows = select(StepMetrics).where(*_rows_of(wanted, first, stop)).subquery()
    keys = sorted(wanted.keys or _keys_of(session, rows))
    absent = literal(math.nan, Double)
    columns = [cast(rows.c.seq, Double), *(cast(rows.c["values"][key].astext, Double) for key in keys)]
    ordered = select(*(func.coalesce(each, absent) for each in columns)).order_by(rows.c.step).subquery()
    packed = session.execute(select(*map(_packed, ordered.c))).one()
    if packed[0] is None:
        return [], {}
    seqs, *curves = map(_unpack, packed)
    places = seqs.astype(np.int64)
    known = zip(keys, curves, strict=True)
    return [int(places[0]), int(places[-1])], {key: Curve.of(curve, places) for key, curve in known}


def _keys_of(session: Session, rows: Any) -> set[str]:
    """The keys of the first and the last row."""
    orders = (rows.c.step, rows.c.step.desc())
    return {key for each in orders for key in session.scalar(select(rows.c["values"]).order_by(each).limit(1)) or ()}


def _read_buckets(session: Session, wanted: Range, first: int, stop: int) -> Iterator[tuple[str, Curve]]:
    """Every curve of the folded part."""
    parts = select(CurveBucket).where(*_buckets_of(CurveBucket, wanted, first, stop))
    if wanted.keys is not None:
        parts = parts.where(CurveBucket.key == any_(cast(sorted(wanted.keys), ARRAY(String))))
    rows = parts.order_by(CurveBucket.key, CurveBucket.bucket).subquery()
    names = ("least", "least_seq", "greatest", "greatest_seq", "total", "squares", "num_values")
    columns = [_packed(cast(rows.c[name], Double)) for name in names]
    for key, *packed in session.execute(select(rows.c.key, *columns).group_by(rows.c.key)):
        least, least_at, greatest, greatest_at, *sums = map(_unpack, packed)
        yield key, Curve(least, least_at.astype(np.int64), greatest, greatest_at.astype(np.int64), *sums)


def _packed(column: Any) -> Any:
    """A column of doubles as one value, so that there is no Python object per number."""
    return func.array_send(func.array_agg(column))


def _unpack(packed: bytes) -> Array:
    return np.frombuffer(packed, _ELEMENT, offset=_HEADER_BYTES)["value"].astype(np.float64)
