"""The GPUs that this worker may use, one for each trainer. Knows neither jobs nor torch."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class Devices:
    """Lends a GPU to each trainer: the one that the fewest have."""

    def __init__(self, names: Sequence[str]) -> None:
        self._borrowers = Counter(dict.fromkeys(names, 0))
        self._lock = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[dict[str, str]]:
        """What the environment of a trainer must say meanwhile; nothing where there is no GPU."""
        if not self._borrowers:
            yield {}
            return
        with self._lock:
            name = min(self._borrowers, key=self._borrowers.__getitem__)
            self._borrowers[name] += 1
        try:
            yield {"CUDA_VISIBLE_DEVICES": name}
        finally:
            with self._lock:
                self._borrowers[name] -= 1


def find_devices(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> list[str]:
    """The names CUDA knows them by: those that `CUDA_VISIBLE_DEVICES` lists, else one for each device file of a GPU."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(p for p in devices.iterdir() if re.fullmatch(r"nvidia\d+", p.name))]
