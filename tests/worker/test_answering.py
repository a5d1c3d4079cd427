"""The thread that takes asks goes on whatever goes wrong beside it."""

from __future__ import annotations

import time

from api.settings import Settings
from api.store.database import Database
from worker.answering import Answerer, WarmModels


class Faulty(WarmModels):
    """Models that cannot be put away the first time."""

    num_calls = 0

    def drop_idle(self, idle_s: float) -> None:
        self.num_calls += 1
        if self.num_calls == 1:
            raise ValueError("a fault of ours")
        super().drop_idle(idle_s)


def test_a_fault_of_its_own_does_not_end_the_answering(settings: Settings, database: Database) -> None:
    models = Faulty(most=1)
    answerer = Answerer(database, settings, models)
    answerer.start()
    try:
        deadline = time.monotonic() + 30.0
        while models.num_calls < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        answerer.stop()
    assert models.num_calls >= 3
