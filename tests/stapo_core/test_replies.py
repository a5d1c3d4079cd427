"""The inbox of the process that answers: what is withdrawn, and what is kept of that."""

from __future__ import annotations

import json
import os
import sys
import time

from stapo_core.replies import Inbox


def test_of_all_that_was_ever_withdrawn_only_the_latest_is_kept() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as lines, os.fdopen(writer, "w") as said:
        inbox = Inbox(lines)
        for number in range(10_000):
            said.write(json.dumps({"cancel": str(number)}) + "\n")
        said.flush()
        deadline = time.monotonic() + 30.0
        while not inbox.is_unwanted({"id": "9999"}) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert inbox.is_unwanted({"id": "9999"})
        assert not inbox.is_unwanted({"id": "1"})
        assert sys.getsizeof(inbox._cancelled) < 1000
        said.close()
        assert inbox.next_ask() is None
