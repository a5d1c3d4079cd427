"""Named places where a process can be made to fail: killed, suspended, delayed, or told that the disk is full.

A no-op unless the environment names a folder in FAILPOINTS. A file there, called as the place, arms it for the one
process that comes by first; what it took lies in `passed` then, as `time-pid-place`. Nothing is written for that but
names, so that a limit on the size of files is left for the writes behind the place. Knows the standard library alone.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Literal, get_args

Place = Literal[
    "claimed",  # the job is ours, and nobody else knows yet
    "spawning",  # the run directory is ours, the trainer has not been started
    "sampling",  # in the middle of a rollout
    "updating",  # gradients are ready, weights have not moved
    "updated",  # weights have moved, nobody has been told
    "checkpoint_drafted",  # written aside, the page cache may hold all of it
    "checkpoint_synced",  # on the disk, under a name that nobody reads
    "checkpoint_renamed",  # whole, without an event that says so
    "pruning",  # the trainer removes old checkpoints
    "flushing",  # rows are written and not committed
    "publishing",  # in the artifact store, without a row
    "collecting",  # rows are gone, their folders are there
    "finishing",  # the trainer is gone, the job's end is not committed
    "cancelling",  # the worker has read the wish and not acted on it
    "pausing",
    "draining",
    "reaping",  # a silent worker's job is locked and not yet taken away
]
PLACES: tuple[str, ...] = get_args(Place)
VARIABLE = "FAILPOINTS"
PASSED = "passed"


def failpoint(place: Place) -> None:
    """Does what the place is armed for. The file holds `kill`, `stop`, `sleep SECONDS` or `raise ENOSPC`.

    `raise` takes the name of any error number; ` @N` behind the action arms the N-th process or time that comes by.
    """
    if folder := os.environ.get(VARIABLE):
        _pass(Path(folder), place)


def _pass(folder: Path, place: Place) -> None:
    name, _, argument = _take(folder, place).partition(" ")
    if name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif name == "sleep":
        time.sleep(float(argument))
    elif name == "raise":
        number = getattr(errno, argument)
        raise OSError(number, f"{os.strerror(number)} (failpoint {place})")


def _take(folder: Path, place: Place) -> str:
    """The action if it is this process's turn, else an empty string. A rename gives a file to one taker alone."""
    armed, ours = folder / place, folder / f".{place}-{os.getpid()}-{threading.get_ident()}"
    try:
        armed.rename(ours)
    except FileNotFoundError:
        return ""
    action, _, turn = ours.read_text().strip().partition(" @")
    if turn and int(turn) > 1:
        ours.write_text(f"{action} @{int(turn) - 1}")
        ours.rename(armed)
        return ""
    (folder / PASSED).mkdir(exist_ok=True)
    ours.rename(folder / PASSED / f"{time.time_ns()}-{os.getpid()}-{place}")
    return action
