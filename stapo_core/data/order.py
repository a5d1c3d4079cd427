"""Which rows go into which step, and which are held out: pure functions of a seed, so nothing has to be remembered."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

AUTO_SHARE, AUTO_MOST, AUTO_FROM_ROWS = 0.05, 200, 200
"""Left to itself, a run without a validation file holds out a twentieth, at most 200 rows; of few rows, none."""


class Split(NamedTuple):
    """Numbers of rows, in order."""

    train: list[int]
    held_out: list[int]


def take(num_rows: int, seed: int, step: int, num_prompts: int) -> list[int]:
    """The rows of step `step` (from 0): a seeded permutation per epoch, laid end to end and cut into steps.

    A function of its arguments alone, so a resumed run needs no iterator state.
    """
    if num_rows < 1:
        raise ValueError("there are no rows to take from")
    places = range(step * num_prompts, (step + 1) * num_prompts)
    return [_permutation(num_rows, seed, place // num_rows)[place % num_rows] for place in places]


def share_to_hold_out(asked: float | None, num_rows: int, *, has_validation_file: bool) -> float:
    """The share of the prompts that is held out, with what none asked for means."""
    if asked is not None:
        return asked
    if has_validation_file or num_rows < AUTO_FROM_ROWS:
        return 0.0
    return min(AUTO_SHARE, AUTO_MOST / num_rows)


def hold_out(rows: Sequence[Mapping[str, Any]], share: float, seed: int) -> Split:
    """Splits by prompt: rows with the same prompt stand on one side, and the order of the file plays no part.

    `share` is of the distinct prompts, rounded; above 0 it is at least one of them, and never all.
    """
    digests = [prompt_digest(row) for row in rows]
    distinct = sorted(set(digests), key=lambda digest: hashlib.sha256(f"{seed}/".encode() + digest).digest())
    num_held_out = min(max(1, round(share * len(distinct))), len(distinct) - 1) if share > 0 else 0
    chosen = frozenset(distinct[:num_held_out])
    sides: Split = Split([], [])
    for number, digest in enumerate(digests):
        (sides.held_out if digest in chosen else sides.train).append(number)
    return sides


def prompt_digest(row: Mapping[str, Any]) -> bytes:
    """16 bytes that are the same for the same prompt alone."""
    prompt = row.get("prompt", row.get("messages"))
    is_text = isinstance(prompt, str)
    text = prompt if is_text else json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"text" if is_text else b"messages").digest()


@lru_cache(maxsize=4)
def _permutation(num_rows: int, seed: int, epoch: int) -> list[int]:
    rows = list(range(num_rows))
    random.Random(f"{seed}/{epoch}").shuffle(rows)  # noqa: S311  # an order of rows, not a secret
    return rows
