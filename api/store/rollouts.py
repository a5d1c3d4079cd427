"""Recorded responses: found by step, reward, mask and order. Their tokens stand in `recordings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, Select, Table, and_, bindparam, delete, func, insert, literal_column, or_, select
from sqlalchemy.orm import Session

from api.errors import NotFound
from api.store.ids import ROLLOUT, new_id
from api.store.pages import Page
from api.store.tables import Job, Rollout

_WORDS: ColumnElement[Any] = literal_column("'simple'::regconfig")  # words as they stand: no language is known

Sort = Literal[
    "step",
    "-step",
    "reward",
    "-reward",
    "length",
    "-length",
    "num_masked",
    "-num_masked",
    "min_p",
    "-min_p",
    "mean_entropy",
    "-mean_entropy",
]


@dataclass(frozen=True)
class RolloutFilter:
    """Which rollouts are wanted; None means all."""

    step: int | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    masked: bool | None = None
    text: str | None = None


def replace_rollouts(session: Session, job: Job, step: int, rows: Sequence[dict[str, Any]]) -> None:
    """The rollouts of a step, in place of those of an earlier attempt. The job's row must be locked."""
    session.execute(delete(Rollout).where(Rollout.job_id == job.id, Rollout.step == step))
    if rows:
        values = [{"id": new_id(ROLLOUT), "job_id": job.id, "step": step, **row} for row in rows]
        searched = func.to_tsvector(_WORDS, bindparam("text"))
        session.execute(insert(cast(Table, Rollout.__table__)).values(words=searched), values)


def truncate_rollouts(session: Session, job: Job, *, above_step: int) -> None:
    """Forgets the steps that the next attempt will do again."""
    session.execute(delete(Rollout).where(Rollout.job_id == job.id, Rollout.step > above_step))


def pin_rollout(session: Session, job: Job, rollout_id: str, *, pinned: bool) -> Rollout:
    """Spares the step of a rollout from retention, or no longer. Raises NotFound when the job has no such rollout."""
    row = get_rollout(session, job, rollout_id)
    row.pinned = pinned
    return row


def drop_oldest(session: Session, job: Job, sizes: Mapping[int, int], *, most_bytes: int) -> list[int]:
    """Forgets the oldest recorded steps until the rest, whose files have `sizes`, takes no more than `most_bytes`.

    Steps with a pinned rollout stay, and so does the newest one. Returns the steps; their files may then go. The job's
    row must be locked.
    """
    excess = sum(sizes.values()) - most_bytes
    if excess <= 0:
        return []
    pinned = set(session.scalars(select(Rollout.step).where(Rollout.job_id == job.id, Rollout.pinned).distinct()))
    dropped = []
    for step in sorted(sizes)[:-1]:
        if excess <= 0:
            break
        if step not in pinned:
            dropped.append(step)
            excess -= sizes[step]
    session.execute(delete(Rollout).where(Rollout.job_id == job.id, Rollout.step.in_(dropped)))
    return dropped


def list_rollouts(
    session: Session, job: Job, wanted: RolloutFilter, *, sort: Sort, after: str | None, limit: int
) -> Page[Rollout]:
    """A page in the order asked for; equal values stand in the order of the step."""
    query = _filtered(select(Rollout).where(Rollout.job_id == job.id), wanted)
    column: ColumnElement[Any] = getattr(Rollout, sort.removeprefix("-"))
    if sort.endswith("mean_entropy"):  # the one that may be null; no index serves what is coalesced
        column = func.coalesce(column, 0)
    is_falling = sort.startswith("-")
    if after is not None:
        last = get_rollout(session, job, after, param="after")
        value = getattr(last, sort.removeprefix("-")) or 0
        beyond: ColumnElement[bool] = column < value if is_falling else column > value
        query = query.where(or_(beyond, and_(column == value, Rollout.number > last.number)))
    ordered = query.order_by(column.desc() if is_falling else column.asc(), Rollout.number)
    rows = session.scalars(ordered.limit(limit + 1)).all()
    return Page(rows=rows[:limit], has_more=len(rows) > limit)


def get_rollout(session: Session, job: Job, rollout_id: str, *, param: str | None = None) -> Rollout:
    """Raises NotFound when the job has no such rollout."""
    row = session.scalar(select(Rollout).where(Rollout.job_id == job.id, Rollout.id == rollout_id))
    if row is None:
        raise NotFound(f"The job has no rollout '{rollout_id}'.", code="rollout_not_found", param=param)
    return row


def find_step(session: Session, job: Job, step: int | None, *, every: int = 1) -> int:
    """The step asked for, or the newest recorded one, rather one that `every` divides. Raises NotFound."""
    order = (Rollout.step % max(every, 1) == 0).desc(), Rollout.step.desc()
    query = select(Rollout.step).where(Rollout.job_id == job.id).order_by(*order).limit(1)
    found = session.scalar(query if step is None else query.where(Rollout.step == step))
    if found is None:
        which = "No step of this job has" if step is None else f"Step {step} of this job has not"
        raise NotFound(
            f"{which} been recorded: every step is while it is among the newest, but for runs whose "
            "config.record_rollouts_every is 0.",
            code="step_not_recorded",
            param=None if step is None else "step",
        )
    return found


def rollout_ids(session: Session, job: Job, step: int) -> dict[int, str]:
    """The ids of a step's rollouts by their place in it."""
    rows = session.execute(select(Rollout.place, Rollout.id).where(Rollout.job_id == job.id, Rollout.step == step))
    return {row.place: row.id for row in rows}


def _filtered(query: Select[Rollout], wanted: RolloutFilter) -> Select[Rollout]:
    if wanted.step is not None:
        query = query.where(Rollout.step == wanted.step)
    if wanted.min_reward is not None:
        query = query.where(Rollout.reward >= wanted.min_reward)
    if wanted.max_reward is not None:
        query = query.where(Rollout.reward <= wanted.max_reward)
    if wanted.masked is not None:
        query = query.where(Rollout.num_masked > 0 if wanted.masked else Rollout.num_masked == 0)
    if wanted.text is not None:
        query = query.where(Rollout.words.bool_op("@@")(func.websearch_to_tsquery(_WORDS, wanted.text)))
    return query
