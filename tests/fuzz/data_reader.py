"""Throws bytes at the reader of data files: `python -m tests.fuzz.data_reader [--seconds 60]`.

atheris steers by what the code covers: first the fuzzer's bytes are a file of their own, plain or compressed, then the
content of a compressed file. A run fails when anything but DataError is raised, when what the fast parser takes differs
from what the strict one says, or when memory passes its limit. At the end some parquet files, damaged at random, go
through the child that reads them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stapo_core.data import DataError, DataErrors, Fault, check_rows, find_source, iter_rows, read_rows
from stapo_core.data.rows import _read_fast, _read_strictly
from stapo_core.data.streams import find_format

MAX_MEMORY_MB = 256
_SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())  # noqa: S108  # a file per try


def seeds() -> list[bytes]:
    """Inputs that reach far into the reader: good rows, faults of every kind, each format."""
    rows = [
        b'{"prompt": "1+1=", "answer": "2"}',
        b'{"messages": [{"role": "user", "content": "a:b \\u003a \\ud83d\\ude00"}], "x": [1, -0.5e3, null, true]}',
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": "a", "x": NaN}',
        b'{"prompt": "a", "x": 123456789012345678901234567890}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "x": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"prompt": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"source": "reasoning_gym", "task": "chain_sums"}',
        b"[1]",
        b"",
    ]
    whole = b"\n".join(rows)
    packed = [gzip.compress(whole), gzip.compress(b"0" * 100_000), zstd(whole), zstd(rows[0]) + zstd(rows[1])]
    megabyte = b"\x02\x00\x10 " * 7 + b"\x03\x00\x10 "  # eight blocks, each a space repeated 2^17 times
    windows = [b"\x28\xb5\x2f\xfd\x00" + bytes([log - 10 << 3]) + megabyte for log in (23, 24, 27)]
    return [*rows, whole, *packed, *windows]


def read_one(content: bytes, path: Path) -> None:
    """What must hold for any file. Raises AssertionError, or whatever the reader lets through."""
    for line in content.split(b"\n"):
        fast = _read_fast(line)
        try:
            strict: Any = _read_strictly(line)
        except Fault:
            strict = None
        assert fast is None or _same(fast, strict), line
    path.write_bytes(content)
    if find_format(path) == "parquet" or find_source(path):
        return  # a child would start: see damage_parquet, and tests of their own
    try:
        for _, row in iter_rows(path):
            assert "prompt" in row or "messages" in row
    except DataError as error:
        assert error.message  # noqa: PT017  # it is any input's: there is nothing to expect
    try:
        check_rows(path, ("answer",))
    except DataErrors as refused:
        assert sum(refused.counts.values()) >= len(refused.errors) > 0  # noqa: PT017


def damage_parquet(rng: random.Random, path: Path, num_files: int) -> int:
    """Reads parquet files with bytes changed or cut off; gives how many were refused."""
    table = pa.table({"prompt": [f"{n}+1=" for n in range(300)], "answer": [str(n + 1) for n in range(300)]})
    pq.write_table(table, path)
    whole = path.read_bytes()
    num_refused = 0
    for _ in range(num_files):
        damaged = bytearray(whole if rng.random() < 0.7 else whole[: rng.randrange(4, len(whole))])
        for _ in range(rng.randint(1, 30)):
            damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_rows(path)
        except DataError:
            num_refused += 1
    return num_refused


def main() -> int:
    """Runs the fuzzer in a child with a time limit, since it ends its process by itself; then the parquet files."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.data_reader", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long to fuzz")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="all randomness follows from it")
    parser.add_argument("--parquet-files", type=int, default=20, help="damaged parquet files to read")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="stapo-fuzz-", dir=_SCRATCH) as scratch:
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        for number, content in enumerate(seeds()):
            (corpus / str(number)).write_bytes(content)
        flags = [f"-max_total_time={asked.seconds}", f"-seed={asked.seed}", f"-rss_limit_mb={MAX_MEMORY_MB}"]
        flags += [
            "-max_len=4096",
            "-timeout=20",
            "-print_final_stats=1",
            "-verbosity=0",
            f"-artifact_prefix={scratch}/",
        ]
        command = [sys.executable, "-m", "tests.fuzz.atheris_target", *flags, str(corpus)]
        ended = subprocess.run(command, env=os.environ | {"STAPO_FUZZ_FILE": f"{scratch}/file"}, check=False)
        if ended.returncode != 0:
            for crash in Path(scratch).glob("*-*"):
                print(f"{crash.name}: {crash.read_bytes()!r}", file=sys.stderr)
            return ended.returncode
        num_refused = damage_parquet(random.Random(asked.seed), Path(scratch) / "damaged", asked.parquet_files)
    print(f"{asked.parquet_files} damaged parquet files: {num_refused} refused, the others read; nothing else happened")
    return 0


def _same(one: Any, other: Any) -> bool:
    """Equal in value and type, down to the sign of a zero."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and json.dumps(one) == json.dumps(other)


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


if __name__ == "__main__":
    sys.exit(main())
