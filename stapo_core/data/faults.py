"""What is wrong with a data file, in words that name the place, the field and the remedy. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


class Fault(Exception):
    """What is wrong with a row, before its place is known; `reason` is the kind that is counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class DataError(ValueError):
    """A fault in a data file: its kind, what is wrong and what to do, and where, unless it is the whole file.

    `line` counts from 1; `unit` says what it counts: lines of text, or rows where the file has no lines.
    """

    def __init__(self, message: str, line: int | None = None, *, reason: str = "file", unit: str = "line") -> None:
        super().__init__(message if line is None else f"{unit} {line}: {message}")
        self.message = message
        self.line = line
        self.reason = reason


class DataErrors(ValueError):
    """The faults of one file: all of them counted by reason, the first MAX_LISTED of each listed, in order."""

    def __init__(self, errors: tuple[DataError, ...], counts: dict[str, int]) -> None:
        more = f" (and {sum(counts.values()) - 1:,} more)" if sum(counts.values()) > 1 else ""
        super().__init__(f"{errors[0]}{more}")
        self.errors = errors
        self.counts = counts


@dataclass
class Tally:
    """Counts faults by reason, however many, and keeps the first `max_listed` of each."""

    max_listed: int
    counts: Counter[str] = field(default_factory=Counter)
    listed: list[DataError] = field(default_factory=list)

    def add(self, error: DataError) -> None:
        """Counts one more."""
        self.counts[error.reason] += 1
        if self.counts[error.reason] <= self.max_listed:
            self.listed.append(error)
