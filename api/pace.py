"""Keeps a process of the API even: few threads at a time, a line of bounded length, another one for what is slow,
short garbage collections.

Threads share one interpreter with the event loop. While forty of them are awake the loop waits behind forty turns,
each turn costs more than it would in a short line, and a delay that piled requests up feeds itself. So few run at a
time and the rest wait in line, where waiting costs nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from api.errors import Unavailable

NUM_QUICK = 8
"""Requests at work at a time, whatever their number."""
NUM_SLOW = 16
"""Besides those, requests that read a file, run a grader or draw up a plan."""
LONGEST_LINE = 2_000
"""Requests that may wait for the quick ones' turns, some seconds' worth; who comes then is told to come again."""
LONGEST_SLOW_LINE = 200
"""The same for those of seconds, which stay in a line of their own: who comes to a full one holds up nobody else."""
YOUNG_OBJECTS = 10_000
"""So many new objects bring a look at the young ones, of some milliseconds; Python's own 700 suits small programs."""

_Asked = ParamSpec("_Asked")
_Given = TypeVar("_Given")
_SLOW_LINE: RunVar[CapacityLimiter] = RunVar("stapo_slow_line")


def settle() -> None:
    """Call it in the event loop, once everything is loaded.

    What a process has by then, some hundred thousand objects, it keeps; to look through them for garbage again and
    again holds every request up for a third of a second each time. So they are set aside, once.
    """
    to_thread.current_default_thread_limiter().total_tokens = NUM_QUICK
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, 10, 10)


def is_full() -> bool:
    """Whether so many quick requests wait that another one had better not: its answer would find its caller gone."""
    return to_thread.current_default_thread_limiter().statistics().tasks_waiting >= LONGEST_LINE


def slow(route: Callable[_Asked, _Given]) -> Callable[_Asked, Awaitable[_Given]]:
    """Marks a route that may take seconds: it holds up its own kind alone."""

    @wraps(route)
    async def wait_in_line(*args: _Asked.args, **kwargs: _Asked.kwargs) -> _Given:
        return await run_slow(partial(route, *args, **kwargs))

    return wait_in_line


async def run_slow(work: Callable[[], _Given]) -> _Given:
    """Does some work of seconds in a thread, at most NUM_SLOW at a time. Raises Unavailable when the line is full."""
    try:
        line = _SLOW_LINE.get()
    except LookupError:
        line = CapacityLimiter(NUM_SLOW)
        _SLOW_LINE.set(line)
    if line.statistics().tasks_waiting >= LONGEST_SLOW_LINE:
        raise Unavailable(
            "More requests of this kind wait than can be answered in time; try again shortly.",
            code="overloaded",
            retry_after_s=5,
        )
    return await to_thread.run_sync(work, limiter=line)
