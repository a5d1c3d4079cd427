"""A wall clock that jumps: an hour off, forwards and backwards in turn, whenever the process gets SIGUSR2.

It is moved inside the process: `time.time` and what asks it. Monotonic clocks go on as they were.
"""

from __future__ import annotations

import signal
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any, Self

_JUMP_S = 3600.0
_off_by_s = 0.0
_right = time.time


class Moved(datetime):
    """`datetime`, by the same wrong clock; it asks the kernel and not `time.time`."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """The time by this process."""
        return super().now(tz) + timedelta(seconds=_off_by_s)


def let_jump() -> None:
    """From now on this process reads the clock that jumps."""
    time.time = lambda: _right() + _off_by_s
    signal.signal(signal.SIGUSR2, _jump)


def _jump(_number: int, _frame: Any) -> None:
    global _off_by_s
    _off_by_s = _JUMP_S if _off_by_s <= 0 else -_JUMP_S
