"""What a grader is asked and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Pair:
    """A response's text and the reference, both filled in."""

    text: str
    reference: str


@dataclass(frozen=True, slots=True)
class Score:
    """A reward, in [0, 1] but for formulas; `error` names the trouble when the grader could not judge and gave 0."""

    value: float
    error: str | None = None


class Scorer(Protocol):
    """Judges pairs; one kind of grader each."""

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """One score per pair, in order."""
        ...

    def close(self) -> None:
        """Ends what it started."""
        ...
