"""Judges pairs while others are still being written: in a thread of its own, and only what was not judged before.

Knows scorers. When a pair is judged changes nothing, since a score follows from its pair alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from stapo_core.graders.score import Pair, Score, Scorer


class Ahead:
    """A scorer that can begin before it is asked for the scores.

    All judging is done by one thread, which lives until `close`: children that the scorer starts die with it.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grader")
        self._lock = threading.Lock()
        self._begun: set[Pair] = set()
        self._waiting: list[Pair] = []
        self._scores: dict[Pair, Score] = {}
        self._work: Future[None] | None = None

    def begin(self, pairs: Sequence[Pair]) -> None:
        """Has the pairs judged meanwhile; `score` finds them done, or waits for them."""
        with self._lock:
            new = [pair for pair in dict.fromkeys(pairs) if pair not in self._begun]
            self._begun.update(new)
            self._waiting += new
            if self._work is None and self._waiting:
                self._work = self._thread.submit(self._judge_all)

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """One score per pair, in order; equal pairs are judged once."""
        self.begin(pairs)
        with self._lock:
            work = self._work
        if work is not None:
            work.result()
        with self._lock:
            known, self._scores, self._begun = self._scores, {}, set()
        return [known[pair] for pair in pairs]

    def close(self) -> None:
        """Ends what the scorer started; what nobody waits for any more is not judged."""
        with self._lock:
            self._waiting = []
        self._scorer.close()
        self._thread.shutdown(wait=True)

    def _judge_all(self) -> None:
        while True:
            with self._lock:
                pairs, self._waiting = self._waiting, []
                if not pairs:
                    self._work = None
                    return
            started = time.perf_counter()
            scores = self._scorer.score(pairs)
            share = (time.perf_counter() - started) / len(pairs)
            timed = [score if score.seconds else replace(score, seconds=share) for score in scores]
            with self._lock:
                self._scores.update(zip(pairs, timed, strict=True))
