"""Reads data files row by row: JSONL (plain, gzip, zstd), parquet, or one line that names a generator of problems.

Knows what makes a row good; bytes are opened in `streams`, and foreign libraries run in a `child`.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from stapo_core.config.faults import find_faults
from stapo_core.config.sources import ReasoningGymSource
from stapo_core.data.child import child_output
from stapo_core.data.faults import DataError, DataErrors, Fault, Tally
from stapo_core.data.rows import MAX_LINE_BYTES, check_prompt, look_up, read_row
from stapo_core.data.streams import capped, find_format, read_lines, split_lines

MAX_LISTED = 100
_JSON_SPACE = b" \t\r\n"

Row = dict[str, Any]
Origin = Path | ReasoningGymSource
"""A file, or a generator in place of one."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a checked file holds."""

    num_rows: int


def read_rows(origin: Origin) -> list[Row]:
    """All rows, in order. Raises DataError at the first fault, and when there is no row."""
    rows = [row for _, row in iter_rows(origin)]
    if not rows:
        raise _empty()
    return rows


def iter_rows(origin: Origin) -> Iterator[tuple[int, Row]]:
    """Yields (line, row), one line in memory at a time; blank lines are skipped. Raises DataError at a fault."""
    for line, found in scan(origin):
        if isinstance(found, DataError):
            raise found
        yield line, found


def check_rows(origin: Origin, required_fields: Collection[str]) -> Summary:
    """Checks every row; `required_fields` are dotted paths that each row must hold, such as `answer` or `meta.answer`.

    Of a generator only the first row is made: its rows are alike. Raises DataErrors, which counts every fault.
    """
    source = origin if isinstance(origin, ReasoningGymSource) else find_source(origin)
    tally, num_rows = Tally(MAX_LISTED), 0
    with closing(scan(origin)) as rows:
        for line, found in islice(rows, 1) if source else rows:
            if isinstance(found, DataError):
                tally.add(found)
                continue
            num_rows += 1
            for field in required_fields:
                if look_up(found, field) is None:
                    tally.add(missing_field(field, line))
    if not num_rows and not tally.listed:
        tally.add(_empty())
    if tally.listed:
        raise DataErrors(tuple(tally.listed), dict(tally.counts))
    return Summary(source.size if source else num_rows)


def scan(origin: Origin) -> Generator[tuple[int, Row | DataError], None, None]:
    """Yields (line, row or what is wrong with it) to the end; a fault of the whole file is the last thing."""
    try:
        if isinstance(origin, ReasoningGymSource):
            yield from _generated(origin)
            return
        kind = find_format(origin)
        if kind == "parquet":
            asked = {"path": str(origin.absolute())}
            yield from _from_child("stapo_core.data.parquet_child", asked, origin.stat().st_size)
        else:
            yield from _from_text(read_lines(origin, kind))
    except DataError as error:
        yield error.line or 0, error


def find_source(path: Path) -> ReasoningGymSource | None:
    """The generator that a file names in place of rows; None also for one that cannot be used, which reading says."""
    try:
        kind = find_format(path)
        if kind == "parquet":
            return None
        first = next((raw for raw in read_lines(path, kind) if raw is None or raw.strip(_JSON_SPACE)), None)
        row = read_row(first) if first else {}
        return _as_source(row, 1) if _is_source(row) else None
    except (DataError, Fault):
        return None


def missing_field(field: str, line: int, unit: Literal["line", "row"] = "line") -> DataError:
    """What is said of a row that lacks a field."""
    message = f"the row has no field '{field}', which the grader reads; add it to every row"
    return DataError(message, line, reason=f"missing_field:{field}", unit=unit)


# --- the kinds of files -----------------------------------------------------------------------------------------


def _from_text(lines: Iterator[bytes | None]) -> Iterator[tuple[int, Row | DataError]]:
    is_first = True
    for line, raw in enumerate(lines, start=1):
        found = _read(raw, line)
        if found is None:
            continue
        if is_first and isinstance(found, dict) and _is_source(found):
            yield from _alone(_as_source(found, line), lines, line)
            return
        is_first = False
        if isinstance(found, dict):
            found = _checked(found, line)
        yield line, found


def _alone(
    source: ReasoningGymSource, rest: Iterator[bytes | None], line: int
) -> Iterator[tuple[int, Row | DataError]]:
    for place, raw in enumerate(rest, start=line + 1):
        if raw is None or raw.strip(_JSON_SPACE):
            message = "a source stands alone in its file; put other rows into another file"
            raise DataError(message, place, reason="source_not_alone")
    yield from _generated(source)


def _generated(source: ReasoningGymSource) -> Iterator[tuple[int, Row | DataError]]:
    asked = {"task": source.task, "config": source.resolved}
    yield from _from_child("stapo_core.data.reasoning_gym_child", asked, None)


def _from_child(module: str, asked: Row, size: int | None) -> Iterator[tuple[int, Row | DataError]]:
    with child_output(module, asked) as output:
        pieces = capped(output, size or 0, is_packed=size is not None)
        for number, raw in enumerate(split_lines(pieces), start=1):
            found = _read(raw, number, unit="row")
            if isinstance(found, dict):
                found = _checked(found, number, unit="row")
            if found is not None:
                yield number, found


def _read(raw: bytes | None, line: int, unit: str = "line") -> Row | DataError | None:
    """The row of a line, or what is wrong with it; None for a blank line."""
    if raw is None:
        message = f"the {unit} is longer than {MAX_LINE_BYTES} bytes; split or shorten it"
        return DataError(message, line, reason="too_long", unit=unit)
    if not raw.strip(_JSON_SPACE):  # first, since a small compressed file may hold millions of them
        return None
    try:
        return read_row(raw)
    except Fault as fault:
        return DataError(fault.message, line, reason=fault.reason, unit=unit)


def _checked(row: Row, line: int, unit: str = "line") -> Row | DataError:
    try:
        check_prompt(row)
    except Fault as fault:
        return DataError(fault.message, line, reason=fault.reason, unit=unit)
    return row


def _is_source(row: Row) -> bool:
    return "source" in row and "prompt" not in row and "messages" not in row


def _as_source(row: Row, line: int) -> ReasoningGymSource:
    try:
        return ReasoningGymSource.model_validate(row)
    except ValidationError as error:
        fault = find_faults(error, ReasoningGymSource)[0]
        raise DataError(f"the source cannot be used: {fault}", line, reason="bad_source") from error


def _empty() -> DataError:
    return DataError("the file holds no rows; write one JSON object per line", reason="empty")
