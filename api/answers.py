"""Answers that were given a moment ago, kept while what they tell of has not changed. In memory, and not much of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

MAX_BYTES = 32 * 2**20
MAX_SHARE = 8
"""A body of more than this part of them is not kept: it would push out what is asked for more often."""


class Answers:
    """Bodies by question and version, the least recently used out first. Any thread may ask for them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[int, bytes]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def find(self, question: Hashable, version: int) -> bytes | None:
        """The answer to the same question about the same version."""
        with self._lock:
            found = self._kept.get(question)
            if found is None or found[0] != version:
                return None
            self._kept.move_to_end(question)
            return found[1]

    def keep(self, question: Hashable, version: int, body: bytes) -> None:
        """Keeps an answer in place of one about another version."""
        with self._lock:
            _, before = self._kept.pop(question, (0, b""))
            self._num_bytes -= len(before)
            if len(body) * MAX_SHARE > MAX_BYTES:
                return
            self._kept[question] = (version, body)
            self._num_bytes += len(body)
            while self._num_bytes > MAX_BYTES:
                _, (_, oldest) = self._kept.popitem(last=False)
                self._num_bytes -= len(oldest)
