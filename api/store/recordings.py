"""Recorded tokens: one parquet file per step in the artifact store, a row per token. Knows files, and no SQL.

A step's responses lie end to end in the order in which the learner saw them. A compact step leaves figures of most
tokens out (null, NaN when read) and counts their entropies instead.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from api.errors import NotFound
from stapo_core.folders import link_or_copy, make_durably, sync

PREVIEW_CHARACTERS = 200
SEARCHED_CHARACTERS = 100_000
Columns = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class EntropySketch:
    """How many entropies of a mini-batch lie in each of equal bins from 0 to `top` nats."""

    top: float
    counts: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Compact:
    """What a compact step says of all its tokens, most of whose figures it left out."""

    kept_below: float
    """Every token with A > 0 and p below it has its figures."""
    grad_squares: float
    """The sum of the squared gradient norms of all tokens."""
    entropies: list[EntropySketch]
    """One per mini-batch."""


_INDEXED = [
    "position",
    "prompt_index",
    "sample_index",
    "reward",
    "advantage",
    "p",
    "entropy",
    "masked",
    "clipped",
    "positive_advantage",
    "low_p",
    "prompt",
    "response",
    "finish",
]
_OF_RESPONSE = ("min_p", "mean_entropy")  # files of older trainers have every token's figures instead


def recording_path(artifacts_dir: Path, job_id: str, step: int) -> Path:
    """Where the tokens of a step lie."""
    return artifacts_dir / job_id / "rollouts" / f"step-{step:06d}.parquet"


def publish_recording(
    source: Path,
    artifacts_dir: Path,
    job_id: str,
    step: int,
    *,
    fence: int = 0,
    keep_alive: Callable[[], object] = lambda: None,
) -> Path:
    """Puts a step's file into the artifact store, whole and on the disk, in place of an earlier attempt's.

    `fence` and `keep_alive` as in `artifacts.publish_folder`. Raises FileNotFoundError when the file is gone.
    """
    target = recording_path(artifacts_dir, job_id, step)
    make_durably(target.parent)
    staging = target.with_name(f".tmp-{target.name}-{fence}")
    staging.unlink(missing_ok=True)
    link_or_copy(source, staging, keep_alive=keep_alive)
    sync(staging)
    keep_alive()
    staging.rename(target)
    sync(target.parent)
    return target


def recording_sizes(artifacts_dir: Path, job_id: str) -> dict[int, int]:
    """The bytes of each recorded step in the store."""
    paths = recording_path(artifacts_dir, job_id, 0).parent.glob("step-*.parquet")
    return {int(path.stem.removeprefix("step-")): path.stat().st_size for path in paths}


def remove_recordings(artifacts_dir: Path, job_id: str, steps: Iterable[int]) -> None:
    """Removes the files of steps whose rows are gone."""
    for step in steps:
        recording_path(artifacts_dir, job_id, step).unlink(missing_ok=True)


def index_recording(path: Path) -> list[dict[str, Any]]:
    """One dict per response: what the table of rollouts holds of it. Raises OSError and pyarrow.ArrowException."""
    names = pq.read_schema(path).names
    table = pq.read_table(path, columns=[*_INDEXED, *(name for name in _OF_RESPONSE if name in names)])
    starts, stops = spans(table["position"].to_numpy())
    columns = {name: table[name].to_numpy() for name in _INDEXED[1:11]}
    of_response = {name: table[name].to_numpy() for name in _OF_RESPONSE if name in names}
    texts = {name: table[name].combine_chunks().take(pa.array(starts)).to_pylist() for name in _INDEXED[11:]}
    candidates = columns["positive_advantage"] & columns["low_p"]
    return [
        {
            "place": place,
            "first_token": start,
            "prompt_index": int(columns["prompt_index"][start]),
            "sample_index": int(columns["sample_index"][start]),
            "reward": float(columns["reward"][start]),
            "advantage": float(columns["advantage"][start]),
            "length": stop - start,
            "finish": texts["finish"][place],
            "num_candidates": int(candidates[start:stop].sum()),
            "num_masked": int(columns["masked"][start:stop].sum()),
            "num_clipped": int(columns["clipped"][start:stop].sum()),
            "min_p": float(of_response.get("min_p", columns["p"])[start:stop].min()),
            "mean_entropy": finite(float(of_response.get("mean_entropy", columns["entropy"])[start:stop].mean())),
            "prompt": _preview(texts["prompt"][place]),
            "preview": _preview(texts["response"][place]),
            "text": _searched(texts["prompt"][place], texts["response"][place]),
        }
        for place, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]


def read_columns(path: Path, names: Sequence[str]) -> Columns:
    """Whole columns of a step. Raises NotFound when the step's file is not there."""
    table = _open(path).read(columns=list(names))
    return {name: table[name].to_numpy() for name in names}


def read_compact(path: Path) -> Compact | None:
    """What a compact step says of all its tokens; None where it has the figures of each. Raises NotFound."""
    said = (_open(path).schema_arrow.metadata or {}).get(b"compact")
    if said is None:
        return None
    values = json.loads(said)
    return Compact(values["kept_below"], values["grad_squares"], [read_sketch(each) for each in values["entropies"]])


def read_sketch(said: dict[str, Any]) -> EntropySketch:
    """A histogram as the trainer wrote it: base64 of zlib of little-endian uint32."""
    counts = zlib.decompress(base64.b64decode(said["counts"]))
    return EntropySketch(said["top"], np.frombuffer(counts, dtype="<u4"))


def read_slice(path: Path, first: int, length: int) -> pa.Table:
    """The rows from `first` on, without reading the rest of the step."""
    file = _open(path)
    groups, skipped, row = [], 0, 0
    for number in range(file.num_row_groups):
        num_rows = file.metadata.row_group(number).num_rows
        if row + num_rows <= first:
            skipped += num_rows
        elif row < first + length:
            groups.append(number)
        row += num_rows
    return file.read_row_groups(groups).slice(first - skipped, length)


def spans(positions: np.ndarray[Any, Any]) -> tuple[list[int], list[int]]:
    """Where each response begins and ends; a response begins at position 0."""
    starts = np.flatnonzero(positions == 0).tolist()
    return starts, [*starts[1:], len(positions)]


def finite(value: float | None) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise NotFound("The recorded tokens of this step are not in the store.", code="recording_not_found") from error


def _searched(*texts: str) -> str:
    """What a rollout is found by; Postgres holds no more than a megabyte of words."""
    return " ".join(text.replace("\x00", " ")[: SEARCHED_CHARACTERS // len(texts)] for text in texts)


def _preview(text: str) -> str:
    """The beginning of a text; Postgres takes no NUL."""
    shown = text.replace("\x00", "\ufffd")
    return shown if len(shown) <= PREVIEW_CHARACTERS else shown[: PREVIEW_CHARACTERS - 1] + "…"
