from __future__ import annotations

import subprocess
import sys

_CHILD = "from benchmarks.stopwatch import peak_mb; print(peak_mb())"


def test_peak_memory_of_a_process_leaves_out_what_the_process_that_started_it_held() -> None:
    held = bytearray(b"x") * 1_200_000_000  # touched, and more than torch alone takes

    told = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True).stdout

    assert 50 < float(told) < len(held) / 1e6
