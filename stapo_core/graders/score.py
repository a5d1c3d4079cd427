"""What a grader is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Sample:
    """A response's text and the row that it answers, as the templates of a grader read them."""

    item: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A response's text and the reference, both filled in."""

    text: str
    reference: str


@dataclass(frozen=True, slots=True)
class Score:
    """A reward, in [0, 1] but for formulas, judges and functions of users; `error` names the trouble when the grader
    could not judge and gave 0.
    """

    value: float
    error: str | None = None
    seconds: float = field(default=0.0, compare=False)
    """How long the judgement took; 0 where it was not timed by itself."""
    note: str | None = None
    """Why a response that could be judged got 0, where that is to be counted: a limit that its program met."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One score per sample, in order: the grader's, and those of its parts by name."""

    total: list[Score]
    parts: dict[str, list[Score]]


class Scorer(Protocol):
    """Judges pairs; one kind of grader each. The same pair has the same score, whenever it is asked."""

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """One score per pair, in order."""
        ...

    def close(self) -> None:
        """Ends what it started. Another thread may be in `score` then, which ends soon, its scores of no more use."""
        ...
