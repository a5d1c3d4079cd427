"""What atheris runs: `python -m tests.fuzz.data_reader` starts it with its flags. Ends the process when time is up."""

from __future__ import annotations

import gzip
import os
import resource
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["stapo_core.data"]):
    from tests.fuzz import data_reader

_PATH = Path(os.environ.get("STAPO_FUZZ_FILE", "fuzzed"))
_tries = 0


def one_input(content: bytes) -> None:
    """A file of these bytes, and one that holds them compressed."""
    global _tries  # the fuzzer gives no place to keep it
    _tries += 1
    data_reader.read_one(content, _PATH)
    if _tries % 8 == 0:
        data_reader.read_one(gzip.compress(content, 1), _PATH)
    if _tries % 8 == 4:
        data_reader.read_one(data_reader.zstd(content), _PATH)
    if _tries % 10_000 == 0:
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{_tries:,} files read, {peak_mb:.0f} MB at the peak", flush=True)
        assert peak_mb < data_reader.MAX_MEMORY_MB


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
