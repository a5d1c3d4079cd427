"""What is wrong with a file of problems, and what it is like, before a job is spent on it.

Reads rows one at a time; of the prompts it keeps digests and lengths alone.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from api.schemas import Duplicate, FileValidation, LengthBin, Lengths, Overlap, RefusedRow
from stapo_core.data import DataError, iter_rows, look_up

MAX_LISTED = 100
NUM_BINS = 20


def validate_file(
    path: Path, file_id: str, *, fields: Collection[str], against: tuple[str, Path] | None = None
) -> FileValidation:
    """The report on a file; `fields` are dotted paths that a row must hold to be kept."""
    others = {_digest(row) for row in _rows(against[1])} if against else set()
    first_lines: dict[bytes, int] = {}
    refused: list[RefusedRow] = []
    duplicates: list[Duplicate] = []
    overlaps: list[int] = []
    missing, present, lengths = Counter[str](), Counter[str](), list[int]()
    num_rows = num_kept = 0
    try:
        for line, row in iter_rows(path):
            num_rows += 1
            present.update(row.keys())
            lengths.append(len(_prompt(row)))
            digest = _digest(row)
            first = first_lines.setdefault(digest, line)
            if first != line:
                duplicates.append(Duplicate(line=line, first_line=first))
            if digest in others:
                overlaps.append(line)
            lacking = [field for field in fields if look_up(row, field) is None]
            missing.update(lacking)
            num_kept += not lacking
            if lacking:
                refused.append(RefusedRow(line=line, reason=f"the row has no field '{lacking[0]}'"))
    except DataError as fault:
        num_rows += 1
        refused.append(RefusedRow(line=fault.line or 0, reason=fault.message))
    return FileValidation(
        file_id=file_id,
        num_rows=num_rows,
        num_kept=num_kept,
        num_refused=num_rows - num_kept,
        refused=refused[:MAX_LISTED],
        num_duplicates=len(duplicates),
        duplicates=duplicates[:MAX_LISTED],
        missing={field: missing[field] for field in sorted(fields)},
        fields=dict(sorted(present.items())),
        overlap=Overlap(file_id=against[0], count=len(overlaps), lines=overlaps[:MAX_LISTED]) if against else None,
        prompt_characters=_lengths(lengths),
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for _, row in iter_rows(path):
            yield row
    except DataError:
        return


def _prompt(row: Mapping[str, Any]) -> str:
    """The text that the model is to read; of messages, their contents."""
    prompt = row.get("prompt", row.get("messages"))
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt or [])


def _digest(row: Mapping[str, Any]) -> bytes:
    prompt = row.get("prompt", row.get("messages"))
    text = json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def _lengths(lengths: list[int]) -> Lengths | None:
    if not lengths:
        return None
    least, most = min(lengths), max(lengths)
    width = max(1, -(-(most - least + 1) // NUM_BINS))
    counts = Counter((length - least) // width for length in lengths)
    bins = [
        LengthBin(start=least + number * width, stop=least + (number + 1) * width, count=counts[number])
        for number in range(max(counts) + 1)
    ]
    ordered = sorted(lengths)
    return Lengths(
        min=least,
        max=most,
        mean=statistics.fmean(lengths),
        median=statistics.median(lengths),
        p95=ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        histogram=bins,
    )
