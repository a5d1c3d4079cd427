"""What every grader's child does: reads settings, then pairs from stdin, and answers each on stdout in JSON lines.

Knows pipes and limits; it trusts its parent alone. It has no timer of its own: its parent kills it. It dies with its
parent and stays under 2 GiB, whatever text it is given.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO, TypeAlias

_MAX_BYTES = 2 * 2**30
_PR_SET_PDEATHSIG = 1

Judge: TypeAlias = Callable[[str, str], float]
"""Text and reference in, reward out; what it raises is counted by kind."""


class Unjudgeable(Exception):
    """A pair that cannot be judged; `kind` is what is counted."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Failed(Exception):
    """A pair that is worth 0 by its text's own doing; `kind` is counted, and is no error."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def serve(make_judge: Callable[[dict[str, Any]], Judge]) -> None:
    """Judges until stdin ends. `make_judge` gets the settings; its imports are done before the first deadline runs."""
    _die_with_parent()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not stand among the answers
    for stop in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the parent decides when this ends
        signal.signal(stop, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
    logging.disable(logging.CRITICAL)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    judge = make_judge(json.loads(lines.get()))
    _say(answers, {"ready": True})
    while True:
        question = json.loads(lines.get())
        _say(answers, _answer(judge, question["text"], question["reference"]))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ["STAPO_PARENT_PID"]):
        os._exit(0)


def _listen(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _say(answers: TextIO, reply: dict[str, Any]) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def _answer(judge: Judge, text: str, reference: str) -> dict[str, Any]:
    try:
        return {"score": judge(text, reference), "error": None}
    except Failed as failure:
        return {"score": 0.0, "error": None, "note": failure.kind}
    except Unjudgeable as error:
        kind = error.kind
    except MemoryError:
        kind = "memory"
    except RecursionError:
        kind = "recursion"
    except Exception as error:  # libraries raise what they like on foreign text; the kind is counted and shown
        kind = type(error).__name__
    return {"score": 0.0, "error": kind}
