"""The report on a file of problems, on the wire."""

from __future__ import annotations

from typing import Literal

from api.schemas.wire import Wire


class RefusedRow(Wire):
    """A row that a job would refuse."""

    line: int
    """The line of the file (in parquet and generated files: the row), from 1; 0 where it is the whole file."""
    detail: str
    """What is wrong and how to mend it."""


class Refusal(Wire):
    """One reason for which rows are refused, and how many are."""

    reason: str
    """Such as `not_json`, `duplicate_key`, `missing_field:answer`, `prompt_too_long`."""
    count: int
    """All of them; a row may be refused for several reasons."""
    examples: list[RefusedRow]
    """The first hundred."""


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
    """How long the prompts are."""

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
    refused: list[Refusal]
    """By reason, the most frequent first."""
    num_duplicates: int
    duplicates: list[Duplicate]
    """The first hundred."""
    missing: dict[str, int]
    """Rows that lack each of the fields asked for."""
    fields: dict[str, int]
    """Rows that hold each top-level field; beyond 200 fields no further names are followed."""
    overlap: Overlap | None
    """Against the other file, where one was named."""
    prompt_characters: Lengths | None
    """In characters; of messages, their contents joined."""
    prompt_tokens: Lengths | None
    """In tokens of the model that was named, its chat template applied; null where none was."""
