"""Cursor pages: newest first or oldest first, by a number that never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")
Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class Cursor:
    """Where a page starts: at the first row, or behind the row whose number is `after`."""

    after: int | None = None
    limit: int = 20
    order: Order = "desc"


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows and whether more follow."""

    rows: Sequence[Row]
    has_more: bool


def read_page(session: Session, query: Select[Row], number: InstrumentedAttribute[int], cursor: Cursor) -> Page[Row]:
    """Reads the rows of `query` that follow the cursor."""
    ordered: Select[Any] = query.order_by(number.desc() if cursor.order == "desc" else number.asc())
    if cursor.after is not None:
        ordered = ordered.where(number < cursor.after if cursor.order == "desc" else number > cursor.after)
    rows = session.scalars(ordered.limit(cursor.limit + 1)).all()
    return Page(rows=rows[: cursor.limit], has_more=len(rows) > cursor.limit)
