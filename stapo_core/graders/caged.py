"""A sandbox as the children of graders use it: replaced when it breaks, its limits told apart by kind."""

from __future__ import annotations

import signal

from stapo_core.graders.child import Unjudgeable
from stapo_core.sandbox.host import MAX_SOURCE_BYTES, Broken, Outcome, Program, Sandbox

_CPU_USED_UP = (-signal.SIGKILL, -signal.SIGXCPU)  # more than one core for as long as the program might run


class MetLimit(Unjudgeable):
    """The program wanted more than a program may have; `kind` says of what."""


class Cage:
    """Runs programs one after the other."""

    def __init__(self) -> None:
        """Raises Obstacle where this machine offers no sandbox."""
        self._sandbox = Sandbox()

    def run(self, program: Program) -> Outcome:
        """How the program ended by itself. Raises MetLimit, and Unjudgeable where it broke the sandbox twice."""
        if len(program.source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES:
            raise MetLimit("source_too_long")
        if program.timeout_s <= 0.0:
            raise MetLimit("timeout")
        try:
            outcome = self._sandbox.run(program)
        except Broken:
            outcome = self._run_afresh(program)
        if outcome.ended != "by_itself":
            raise MetLimit(outcome.ended)
        if outcome.code in _CPU_USED_UP:
            raise MetLimit("cpu_time")
        if outcome.raised == "MemoryError":
            raise MetLimit("memory")
        return outcome

    def _run_afresh(self, program: Program) -> Outcome:
        self._sandbox.close()
        self._sandbox = Sandbox()
        try:
            return self._sandbox.run(program)
        except Broken as error:
            raise Unjudgeable("sandbox_broken") from error
