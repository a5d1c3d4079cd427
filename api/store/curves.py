"""Long curves without their rows: stretches of SPAN steps are folded once and for all to what is least and greatest.

A stretch is folded when the first step behind it is written; a new attempt unfolds what it takes back. So whatever lies
before the last folded stretch is folded, and the rest is read row by row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from api.store.tables import CurveBucket, StepBucket
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
    """The curves of a range, and the numbers of its first and last row, if it still has any."""

    ends: tuple[int, ...]
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
    row = session.execute(_MEASURE, _named(wanted, first, stop)).one()
    ends = () if row.first_seq is None else (row.first_seq, row.last_seq)
    return Extent(wanted, first, stop, row.num_rows + int(row.num_folded or 0), ends)


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
    return Survey((min(ends), max(ends)) if ends else (), [curves[key] for key in sorted(curves)])


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


def _named(wanted: Range, first: int, stop: int) -> dict[str, Any]:
    """The range for the statements below; `first` to `stop` is its folded part."""
    ends = {"from_step": wanted.from_step, "to_step": wanted.to_step, "above": first * SPAN, "below": stop * SPAN}
    return {"job": wanted.job_id, "kind": wanted.kind, **ends, "first": first, "stop": stop}


# Written out, since they are asked often: to build such statements from their parts takes longer than to run them.
_ROWS = """step_metrics
    WHERE job_id = :job AND kind = :kind AND step >= :from_step AND step <= :to_step
    AND (step < :above OR step >= :below)"""
_BUCKETS = "WHERE job_id = :job AND kind = :kind AND bucket >= :first AND bucket < :stop"
_MEASURE = text(f"""
SELECT * FROM (SELECT count(*) AS num_rows FROM {_ROWS}) AS rows,
(SELECT sum(num_rows) AS num_folded, min(first_seq) AS first_seq, max(last_seq) AS last_seq
 FROM step_buckets {_BUCKETS}) AS buckets""")  # noqa: S608  # of our own constants
_KEYS = text(f"""
SELECT jsonb_object_keys(values) FROM (SELECT values FROM {_ROWS} ORDER BY step LIMIT 1) AS first
UNION SELECT jsonb_object_keys(values) FROM (SELECT values FROM {_ROWS} ORDER BY step DESC LIMIT 1) AS last
""")  # noqa: S608
_VALUES = text(f"""
SELECT key, array_send(array_agg(seq::float8 ORDER BY step)),
array_send(array_agg(coalesce((values ->> key)::float8, 'NaN') ORDER BY step))
FROM (SELECT seq, step, values FROM {_ROWS}) AS rows, unnest(cast(:keys AS text[])) AS key GROUP BY key
""")  # noqa: S608
_EXTREMES = text(f"""
SELECT key, {
    ", ".join(
        f"array_send(array_agg({name}::float8 ORDER BY bucket))"
        for name in ("least", "least_seq", "greatest", "greatest_seq", "total", "squares", "num_values")
    )
}
FROM curve_buckets {_BUCKETS} AND (cast(:keys AS text[]) IS NULL OR key = ANY(:keys)) GROUP BY key
""")  # noqa: S608


_ELEMENT = np.dtype([("size", ">i4"), ("value", ">f8")])
_HEADER_BYTES = 20  # of an array of one dimension in Postgres's binary form (array_send)


def _read_rows(session: Session, wanted: Range, first: int, stop: int) -> tuple[list[int], dict[str, Curve]]:
    """The first and last row outside the folded part, and every curve there; without keys, those of the two rows."""
    named = _named(wanted, first, stop)
    keys = list(wanted.keys or session.scalars(_KEYS, named))
    ends, found = [], {}
    for key, seqs, values in session.execute(_VALUES, named | {"keys": keys}):
        places = _unpack(seqs).astype(np.int64)  # of the same moment as the values: a step may be written meanwhile
        ends = [int(places[0]), int(places[-1])]
        found[key] = Curve.of(_unpack(values), places)
    return ends, found


def _read_buckets(session: Session, wanted: Range, first: int, stop: int) -> Iterator[tuple[str, Curve]]:
    """Every curve of the folded part."""
    keys = None if wanted.keys is None else list(wanted.keys)
    for key, *packed in session.execute(_EXTREMES, _named(wanted, first, stop) | {"keys": keys}):
        least, least_at, greatest, greatest_at, *sums = map(_unpack, packed)
        yield key, Curve(least, least_at.astype(np.int64), greatest, greatest_at.astype(np.int64), *sums)


def _unpack(packed: bytes) -> Array:
    """An array of doubles from Postgres's binary form, so that there is no Python object per number."""
    return np.frombuffer(packed, _ELEMENT, offset=_HEADER_BYTES)["value"].astype(np.float64)
