"""How fast a file of problems is validated, and in how much memory: makes one of the size asked for, and reports.

Free of torch, since its memory would hide what is measured.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path

from rich.console import Console

from api.validation import Checks, validate_file

_REPEATED_EVERY, _FAULTY_EVERY = 1000, 100_000
_WORDS = "find the sum of these numbers and say how many apples trains hours birds coins were left in each box".split()  # noqa: SIM905


def main(gigabytes: float, *, kind: str = "plain") -> None:
    """Prints the rate and the peak memory of one validation of a file in the format `kind`."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="stapo-bench-") as scratch:
        path, num_rows = Path(scratch) / "rows.jsonl", 0
        with console.status("writing the file"):
            num_rows = write_rows(path, int(gigabytes * 1e9))
            size = path.stat().st_size
            path = _pack(path, kind)
        before = _memory_mb("VmRSS")
        started, wall = time.process_time(), time.perf_counter()
        report = validate_file(path, "file", Checks(fields=("answer",)), scratch=Path(scratch))
        cpu_s, wall_s = time.process_time() - started, time.perf_counter() - wall
    console.print(f"{size / 1e9:.2f} GB of JSONL ({kind}), {num_rows:,} rows", highlight=False)
    console.print(
        f"{num_rows / cpu_s:,.0f} rows and {size / 1e6 / cpu_s:.0f} MB per CPU-second "
        f"({cpu_s:.1f} CPU-s, {wall_s:.1f} s)",
        highlight=False,
    )
    console.print(f"memory {before:.0f} MB before, {_memory_mb('VmHWM'):.0f} MB at the peak", highlight=False)
    refused = ", ".join(f"{each.count:,} {each.reason}" for each in report.refused)
    console.print(f"found {report.num_duplicates:,} duplicates; refused {refused}", highlight=False)


def write_rows(path: Path, num_bytes: int) -> int:
    """Writes rows of some 40 to 400 characters until the size is reached; gives their number.

    One row in a thousand repeats an earlier prompt, and one in a hundred thousand cannot be used.
    """
    rng = random.Random(0)
    num_rows = written = 0
    repeated = ""
    with path.open("w") as file:
        while written < num_bytes:
            num_rows += 1
            prompt = f"Problem {num_rows}: {' '.join(rng.choices(_WORDS, k=rng.randint(4, 60)))}: {rng.random()}?"
            if num_rows % _REPEATED_EVERY == 1:
                repeated = prompt
            elif num_rows % _REPEATED_EVERY == 0:
                prompt = repeated
            line = json.dumps({"prompt": prompt, "answer": str(rng.randrange(1000)), "level": num_rows % 5}) + "\n"
            if num_rows % _FAULTY_EVERY == 0:
                line = '{"prompt": "no answer"}\n' if num_rows % (2 * _FAULTY_EVERY) else '{"prompt": NaN}\n'
            written += file.write(line)
    return num_rows


def _pack(path: Path, kind: str) -> Path:
    """The same rows in another format."""
    if kind == "plain":
        return path
    import pyarrow as pa

    packed = path.with_suffix(f".{kind}")
    with path.open("rb") as rows, pa.CompressedOutputStream(pa.OSFile(str(packed), "wb"), kind) as out:
        while piece := rows.read(2**20):
            out.write(piece)
    path.unlink()
    return packed


def _memory_mb(name: str) -> float:
    """This process alone, in MB (10^6 bytes): VmRSS now, VmHWM at its most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6
