"""What a caged process does: it reads one program, runs it, evaluates expressions and tells what came out.

Nothing here is trusted: the program can replace all of it. What it tells is therefore only ever a claim about values,
and whoever knows which values are right sits outside.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import types
from typing import Any

from stapo_core.sandbox import plain

STDIN, STDOUT, STDERR, QUESTION, ANSWERS = range(5)
_RECURSION = 10_000


def run() -> int:
    """Reads the program from QUESTION and answers on ANSWERS, a JSON line each; the exit status."""
    with open(QUESTION, "rb") as file:  # noqa: PTH123
        question = json.loads(file.read())
    _renew_streams()
    os.environ.clear()
    sys.argv = ["program.py"]
    module = types.ModuleType(question["name"])
    sys.modules[question["name"]] = module
    names = module.__dict__
    sys.setrecursionlimit(_RECURSION)
    with open(ANSWERS, "w", encoding="utf-8") as answers:  # noqa: PTH123
        status = _execute(question["source"], names, answers)
        if status == 0:
            names.update({name: plain.decode(value) for name, value in question["bound"].items()})
            for expression in question["expressions"]:
                _say(answers, _evaluate(expression, names))
    _finish()
    return status


def _execute(source: str, names: dict[str, Any], answers: io.TextIOBase) -> int:
    status, kind = 0, None
    try:
        exec(compile(source, "program.py", "exec", dont_inherit=True), names)  # noqa: S102  # that is what the cage is for
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
        kind = _kind(left)
    except BaseException as error:
        status, kind = 1, _kind(error)
    _say(answers, {"raised": kind})
    return status


def _evaluate(expression: str, names: dict[str, Any]) -> dict[str, Any]:
    try:
        value = eval(compile(expression, "test", "eval", dont_inherit=True), names)  # noqa: S307  # caged
    except BaseException as error:
        return {"raised": _kind(error)}
    try:
        return {"value": plain.encode(value)}
    except plain.NotPlain:
        return {"raised": "not_plain"}


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _say(answers: io.TextIOBase, reply: dict[str, Any]) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def _renew_streams() -> None:
    """The fork server's own were made over other descriptors."""
    sys.stdin = sys.__stdin__ = open(STDIN, encoding="utf-8", errors="replace")  # type: ignore[misc]  # noqa: PTH123, SIM115
    sys.stdout = sys.__stdout__ = open(STDOUT, "w", encoding="utf-8", errors="replace")  # type: ignore[misc]  # noqa: PTH123, SIM115
    sys.stderr = sys.__stderr__ = open(STDERR, "w", encoding="utf-8", errors="replace")  # type: ignore[misc]  # noqa: PTH123, SIM115


def _finish() -> None:
    """What an interpreter does at its end, which the child leaves out."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # closed, or nobody reads any more
            continue
