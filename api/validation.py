"""What is wrong with a file of problems, and what it is like, before a job is spent on it.

Reads rows one at a time; of the prompts it keeps digests and lengths alone, and digests beyond some megabytes on disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.counting import MOST_CHARACTERS, TokenCounter
from api.prompts import PromptIndex, Repeats
from api.schemas import Duplicate, FileValidation, LengthBin, Lengths, Overlap, Refusal, RefusedRow
from stapo_core.data import DataError, Tally, look_up, missing_field, prompt_digest, prompt_text, scan

MAX_LISTED = 100
MAX_FIELDS = 200
NUM_BINS = 20


@dataclass(frozen=True)
class Checks:
    """What a row must be to be kept, and what the file is compared with."""

    fields: Collection[str] = ()
    """Dotted paths that a row must hold."""
    against: tuple[str, Path] | None = None
    """Another file, by its id, to find prompts in both."""
    counter: TokenCounter | None = None
    """Counts tokens, where a model is named."""
    max_prompt_tokens: int | None = None
    """The most tokens of a prompt; None for any number."""


def validate_file(path: Path, file_id: str, checks: Checks, *, scratch: Path) -> FileValidation:
    """The report on a file. Rows that another look needs are kept below `scratch` meanwhile."""
    with PromptIndex(scratch) as index:
        if checks.against:
            for row in _good_rows(checks.against[1]):
                index.add_other(prompt_digest(row))
        look = _Look(checks, index)
        for line, found in scan(path):
            look.take(line, found)
        look.count_tokens()
        duplicates, overlaps = index.find(MAX_LISTED)
    return look.report(file_id, duplicates, overlaps)


@dataclass
class _Look:
    """What has been seen of a file so far."""

    checks: Checks
    index: PromptIndex
    num_rows: int = 0
    num_kept: int = 0
    refused: Tally = field(default_factory=lambda: Tally(MAX_LISTED))
    present: Counter[str] = field(default_factory=Counter)
    characters: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    waiting: list[tuple[int, Any, bool]] = field(default_factory=list)
    """Prompts whose tokens are to be counted: their line, themselves, and whether all else is well."""
    waiting_characters: int = 0

    def take(self, line: int, found: dict[str, Any] | DataError) -> None:
        """Looks at one row."""
        if isinstance(found, DataError):
            self.num_rows += line > 0
            self.refused.add(found)
            return
        self.num_rows += 1
        self._note_fields(found)
        length = len(prompt_text(found))
        self.characters[length] += 1
        self.index.add(prompt_digest(found), line)
        is_whole = True
        for name in self.checks.fields:
            if look_up(found, name) is None:
                self.refused.add(missing_field(name, line))
                is_whole = False
        if self.checks.counter is None:
            self.num_kept += is_whole
            return
        self.waiting.append((line, found.get("prompt", found.get("messages")), is_whole))
        self.waiting_characters += length
        if self.waiting_characters >= MOST_CHARACTERS or len(self.waiting) >= 1000:
            self.count_tokens()

    def count_tokens(self) -> None:
        """Counts the tokens of the prompts that wait for it."""
        if self.checks.counter is None:
            return
        lengths = self.checks.counter.count([prompt for _, prompt, _ in self.waiting])
        for (line, _, is_whole), length in zip(self.waiting, lengths, strict=True):
            fault = self._fault_of(line, length)
            if fault is not None:
                self.refused.add(fault)
            if length is not None:
                self.tokens[length] += 1
            self.num_kept += is_whole and fault is None
        self.waiting, self.waiting_characters = [], 0

    def report(self, file_id: str, duplicates: Repeats, overlaps: Repeats) -> FileValidation:
        """All of it."""
        against = self.checks.against
        counts = self.refused.counts
        return FileValidation(
            file_id=file_id,
            num_rows=self.num_rows,
            num_kept=self.num_kept,
            num_refused=self.num_rows - self.num_kept,
            refused=_refusals(self.refused),
            num_duplicates=duplicates.count,
            duplicates=[Duplicate(line=line, first_line=first) for line, first in duplicates.listed],
            missing={name: counts[f"missing_field:{name}"] for name in sorted(self.checks.fields)},
            fields=dict(sorted(self.present.items())),
            overlap=Overlap(file_id=against[0], count=overlaps.count, lines=[line for line, _ in overlaps.listed])
            if against
            else None,
            prompt_characters=_lengths(self.characters),
            prompt_tokens=_lengths(self.tokens),
        )

    def _note_fields(self, row: Mapping[str, Any]) -> None:
        """Counts the fields by name; a file that names ever new ones is not followed beyond MAX_FIELDS."""
        for name in row:
            if name in self.present or len(self.present) < MAX_FIELDS:
                self.present[name] += 1

    def _fault_of(self, line: int, length: int | None) -> DataError | None:
        most = self.checks.max_prompt_tokens
        if length is None:
            message = "the model's chat template does not take these messages; write the prompt as a string"
            return DataError(message, line, reason="chat_template")
        if most is not None and length > most:
            message = f"the prompt has {length} tokens and max_prompt_tokens is {most}; shorten it or raise the limit"
            return DataError(message, line, reason="prompt_too_long")
        return None


def _good_rows(path: Path) -> Iterable[dict[str, Any]]:
    for _, found in scan(path):
        if not isinstance(found, DataError):
            yield found


def _refusals(refused: Tally) -> list[Refusal]:
    return [
        Refusal(
            reason=reason,
            count=count,
            examples=[
                RefusedRow(line=error.line or 0, detail=error.message)
                for error in refused.listed
                if error.reason == reason
            ],
        )
        for reason, count in refused.counts.most_common()
    ]


def _lengths(counts: Counter[int]) -> Lengths | None:
    """What the lengths are like, from how often each occurs."""
    if not counts:
        return None
    ordered = sorted(counts)
    total = counts.total()
    least, most = ordered[0], ordered[-1]
    width = max(1, -(-(most - least + 1) // NUM_BINS))
    bins = Counter[int]()
    for length, count in counts.items():
        bins[(length - least) // width] += count
    return Lengths(
        min=least,
        max=most,
        mean=sum(length * count for length, count in counts.items()) / total,
        median=(_at(counts, ordered, (total - 1) // 2) + _at(counts, ordered, total // 2)) / 2,
        p95=_at(counts, ordered, min(total - 1, int(0.95 * total))),
        histogram=[
            LengthBin(start=least + number * width, stop=least + (number + 1) * width, count=bins[number])
            for number in range(max(bins) + 1)
        ],
    )


def _at(counts: Counter[int], ordered: list[int], rank: int) -> int:
    """The length at a place, from 0, among all of them in order."""
    for length in ordered:
        rank -= counts[length]
        if rank < 0:
            return length
    return ordered[-1]
