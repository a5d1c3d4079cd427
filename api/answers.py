"""Answers that were given a moment ago, kept while what they tell of has not changed. In memory, and not much of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

MAX_BYTES = 32 * 2**20


class Answers:
    """Bodies by question and version, the least recently used out first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[int, bytes]] = OrderedDict()
        self._num_bytes = 0

    def find(self, question: Hashable, version: int) -> bytes | None:
        """The answer to the same question about the same version."""
        found = self._kept.get(question)
        if found is None or found[0] != version:
            return None
        self._kept.move_to_end(question)
        return found[1]

    def keep(self, question: Hashable, version: int, body: bytes) -> None:
        """Keeps an answer in place of one about another version."""
        _, before = self._kept.pop(question, (0, b""))
        self._kept[question] = (version, body)
        self._num_bytes += len(body) - len(before)
        while self._num_bytes > MAX_BYTES:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._num_bytes -= len(oldest)
