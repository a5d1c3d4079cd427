"""The child of the math grader: reads pairs from stdin, judges them with math-verify, answers on stdout.

Knows the algebra; it trusts its parent alone. It has no timer of its own: its parent kills it. It dies with its
parent and stays under 2 GiB, whatever expression it is given.
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
from typing import Any

_MAX_BYTES = 2 * 2**30
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Judges until stdin ends."""
    _die_with_parent()
    for stop in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the parent decides when this ends
        signal.signal(stop, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
    logging.disable(logging.CRITICAL)
    questions: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    _judge("\\boxed{1}", "\\boxed{1}")  # imports and warms the algebra before the first deadline runs
    _say({"ready": True})
    while True:
        question = json.loads(questions.get())
        _say(_judge(question["text"], question["reference"]))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ["STAPO_PARENT_PID"]):
        os._exit(0)


def _listen(questions: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        questions.put(line)
    os._exit(0)


def _say(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def _judge(text: str, reference: str) -> dict[str, Any]:
    from math_verify import verify  # here, so that the limits hold while the algebra loads

    try:
        gold = _read(reference)
        if not gold:
            return {"score": 0.0, "error": "reference_unreadable"}
        is_equal = verify(gold, _read(text), timeout_seconds=None)
    except MemoryError:
        return {"score": 0.0, "error": "memory"}
    except RecursionError:
        return {"score": 0.0, "error": "recursion"}
    except Exception as error:  # the algebra raises what it likes on foreign text; the kind is counted and shown
        return {"score": 0.0, "error": type(error).__name__}
    return {"score": float(is_equal), "error": None}


def _read(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    found: list[Any] = parse(
        text,
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()],
        parsing_timeout=None,
    )
    return found


if __name__ == "__main__":
    main()
