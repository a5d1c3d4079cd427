"""The child of the code grader: runs a program in the sandbox and compares what comes out with what is expected."""

from __future__ import annotations

import time
from typing import Any

from stapo_core.graders.caged import Cage, MetLimit
from stapo_core.graders.child import Failed, Judge, Unjudgeable, serve
from stapo_core.graders.unit_tests import Case, Tests, UnreadableTests, read_tests
from stapo_core.sandbox.host import Program


def make_judge(settings: dict[str, Any]) -> Judge:
    """A judge of programs; its texts are sources, its references tests.

    A limit that a program meets is its own fault and no error: a model that writes endless loops can still learn.
    """
    cage = Cage()
    takes_share = settings["reward"] == "share"

    def judge(source: str, reference: str) -> float:
        try:
            tests = read_tests(reference)
        except UnreadableTests as error:
            raise Unjudgeable("tests_unreadable") from error
        try:
            return share(source, tests)
        except MetLimit as limit:
            raise Failed(limit.kind) from limit

    def share(source: str, tests: Tests) -> float:
        deadline = time.monotonic() + settings["timeout_s"]
        passed = _count_calls(cage, source, tests, settings["timeout_s"])
        if not takes_share and passed < len(tests.calls):
            return 0.0
        for case in tests.cases:
            if _passes(cage, source, case, deadline - time.monotonic()):
                passed += 1
            elif not takes_share:
                return 0.0
        return passed / (len(tests.calls) + len(tests.cases))

    return judge


def _count_calls(cage: Cage, source: str, tests: Tests, timeout_s: float) -> int:
    """How many calls give what is expected; all are made in one process, after the source has run once."""
    if not tests.calls:
        return 0
    expressions = tuple(call.expression for call in tests.calls)
    outcome = cage.run(Program(source, timeout_s, expressions=expressions))
    pairs = zip(tests.calls, outcome.answers, strict=False)  # a program that left early has answered fewer
    return sum(answer.raised is None and call.accepts(answer.value) for call, answer in pairs)


def _passes(cage: Cage, source: str, case: Case, timeout_s: float) -> bool:
    outcome = cage.run(Program(source, timeout_s, stdin=case.stdin, name="__main__"))
    return outcome.code == 0 and case.accepts(outcome.stdout)


if __name__ == "__main__":
    serve(make_judge)
