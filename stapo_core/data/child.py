"""Reads rows that a child process writes as JSON lines: from parquet, or by running a generator of problems.

Both are libraries that may crash, hang or take all memory on foreign input. The child has limits, is killed when it
stays silent, and what it writes is checked like any file. It tells why it gives up in its last words on stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from stapo_core.data.faults import DataError

SILENCE_S = 60.0
"""A child that writes nothing for so long is killed."""
EXIT_REFUSED = 3
_MAX_MEMORY = 2 * 2**30
_MAX_WORDS = 2**20
"""Bytes on stderr, which is a file; a child that says more is at its end."""
_PR_SET_PDEATHSIG = 1


@contextmanager
def child_output(module: str, asked: dict[str, Any]) -> Iterator[ChildOutput]:
    """Starts `python -m module` with its question on stdin; it is gone at the end. Raises DataError as `read` does."""
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(  # noqa: S603  # our own modules alone
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            env=_environment(),
        )
        assert process.stdin is not None  # noqa: S101  # pipes were asked for
        assert process.stdout is not None  # noqa: S101
        try:
            with process.stdin as stdin:
                stdin.write(json.dumps(asked).encode())
        except BrokenPipeError:  # it died at once: its output ends, and its last words say why
            pass
        try:
            yield ChildOutput(process, process.stdout, words)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


class ChildOutput:
    """What a child writes, piece by piece."""

    def __init__(self, process: subprocess.Popen[bytes], stdout: IO[bytes], words: IO[bytes]) -> None:
        self._process = process
        self._stdout = stdout
        self._words = words

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end. Raises DataError when the child refuses, crashes or stays silent."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            if not selector.select(SILENCE_S):
                raise DataError(f"nothing was read for {SILENCE_S:.0f} s; ask for less", reason="too_slow")
        piece = os.read(self._stdout.fileno(), size)
        if not piece:
            self._check_end()
        return piece

    def _check_end(self) -> None:
        code = self._process.wait()
        if code == 0:
            return
        self._words.seek(0)
        lines = self._words.read(65536).decode(errors="replace").strip().splitlines()
        last = lines[-1][:1000] if lines else ""
        if code == EXIT_REFUSED:
            raise DataError(last, reason="unreadable")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise DataError(f"reading ended with {how} ({last or 'no word'}); check the file", reason="unreadable")


class Refused(Exception):
    """A child gives up on its input, in words for the user."""


def serve(write_rows: Callable[[dict[str, Any]], None]) -> None:
    """What every child does: takes its limits, reads the question, writes rows, and says why where it cannot."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ["STAPO_PARENT_PID"]):
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_WORDS, _MAX_WORDS))
    try:
        write_rows(json.load(sys.stdin))
        sys.stdout.flush()
    except BrokenPipeError:  # nobody wants more
        os._exit(0)
    except Refused as refusal:
        _give_up(str(refusal))
    except MemoryError:
        _give_up(f"it takes more than {_MAX_MEMORY} bytes of memory to read; write smaller parts")


def _give_up(words: str) -> None:
    print(" ".join(words.split()), file=sys.stderr, flush=True)  # noqa: T201  # the parent reads it
    os._exit(EXIT_REFUSED)


def _environment() -> dict[str, str]:
    """Ours without the service's settings; a fixed hash seed, since generators iterate over sets."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith("STAPO_")}
    return passed | {"STAPO_PARENT_PID": str(os.getpid()), "PYTHONHASHSEED": "0", "ARROW_DEFAULT_MEMORY_POOL": "system"}
