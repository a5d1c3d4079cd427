"""The report on a file of problems, on the wire."""

from __future__ import annotations

from typing import Literal

from api.schemas.wire import Wire


class RefusedRow(Wire):
    """A row that a job would refuse."""

    line: int
    """The line of the file, from 1."""
    reason: str


class Duplicate(Wire):
    """A row whose prompt stands in the file already."""

    line: int
    first_line: int


class Overlap(Wire):
    """Prompts that stand in the other file too."""

    file_id: str
    count: int
    lines: list[int]
    """Lines of this file, the first hundred."""


class LengthBin(Wire):
    """How many prompts have a length from `start` up to, not including, `stop`."""

    start: int
    stop: int
    count: int


class Lengths(Wire):
    """How long the prompts are, in characters."""

    min: int
    max: int
    mean: float
    median: float
    p95: int
    histogram: list[LengthBin]


class FileValidation(Wire):
    """What is wrong with a file and what it is like."""

    object: Literal["file.validation"] = "file.validation"
    file_id: str
    num_rows: int
    num_kept: int
    num_refused: int
    refused: list[RefusedRow]
    """The first hundred rows that a job would refuse."""
    num_duplicates: int
    duplicates: list[Duplicate]
    """The first hundred."""
    missing: dict[str, int]
    """Rows that lack each of the fields asked for."""
    fields: dict[str, int]
    """Rows that hold each top-level field."""
    overlap: Overlap | None
    """Against the other file, where one was named."""
    prompt_characters: Lengths | None
