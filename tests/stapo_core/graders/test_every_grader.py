"""Every grader of the registry on its cases: known answers, hostile text, a text that takes for ever, an error."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from stapo_core.config import Grader
from stapo_core.graders import SCORERS, build_grader
from stapo_core.graders.judges import JUDGES_FILE
from stapo_core.graders.score import Sample, Score
from tests.stapo_core.graders.cases import CASES, HOSTILE, SLOW_S, Case
from tests.stapo_core.graders.endpoint import Handler, completion, reply, serve

ADAPTER: TypeAdapter[Any] = TypeAdapter(Grader)


@pytest.fixture(scope="module", autouse=True)
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A judge on the operator's list that gives 1 for `4`, never answers to `hang`, and has no number for `prose`."""

    def answer(handler: Handler, number: int) -> None:
        said = endpoint.bodies[number]["messages"][-1]["content"]
        if said == "hang":
            stopped.wait(60.0)
        text = "quite good" if said == "prose" else json.dumps({"result": float(said == "4")})
        reply(handler, 200, completion(text))

    stopped = threading.Event()
    with pytest.MonkeyPatch.context() as patch, serve(answer) as endpoint:
        patch.setenv(JUDGES_FILE, str(endpoint.list_judges(tmp_path_factory.mktemp("judges"))))
        yield
        stopped.set()


def judged(kind: str, samples: list[Sample], **changes: Any) -> list[Score]:
    config = ADAPTER.validate_python({"type": kind} | CASES[kind].config | changes)
    pool = build_grader(config, allows_user_code=True)
    try:
        return pool.judge(samples).total
    finally:
        pool.close()


def right(kind: str) -> Sample:
    text, item, _ = CASES[kind].known[0]
    return Sample(item, text)


def test_every_grader_has_its_cases_and_every_gap_its_reason() -> None:
    assert set(CASES) == {*SCORERS, "multi"}
    for kind, cases in CASES.items():
        assert cases.known[0][2] == 1.0, kind
        assert any(reward == 0.0 for _, _, reward in cases.known), kind
        for gap in (cases.endless, cases.unjudgeable):
            assert isinstance(gap, Case) or len(gap.split()) > 3, kind


@pytest.mark.parametrize("kind", CASES)
def test_known_answers_get_their_rewards(kind: str) -> None:
    known = CASES[kind].known
    scores = judged(kind, [Sample(item, text) for text, item, _ in known])
    assert scores == [Score(reward) for _, _, reward in known]


@pytest.mark.parametrize("kind", CASES)
def test_hostile_text_gets_a_score_in_bounds_or_an_error_and_the_next_is_judged_rightly(kind: str) -> None:
    hasty = {"timeout_s": SLOW_S} if "timeout_s" in CASES[kind].config else {}
    item = CASES[kind].known[0][1]
    scores = judged(kind, [*(Sample(item, text) for text in HOSTILE), right(kind)], **hasty)
    assert all(math.isfinite(score.value) and 0.0 <= score.value <= 1.0 for score in scores)
    assert all(score.value == 0.0 for score in scores if score.error is not None)
    assert scores[-1] == Score(1.0) or "timeout" in (scores[-1].error, scores[-1].note)  # on a crowded machine


@pytest.mark.parametrize("kind", [kind for kind, cases in CASES.items() if isinstance(cases.endless, Case)])
def test_a_text_that_takes_for_ever_costs_its_deadline_and_nothing_else(kind: str) -> None:
    case = CASES[kind].endless
    assert isinstance(case, Case)
    hasty = {} if kind == "multi" else {"timeout_s": 2 * SLOW_S}
    beside = [] if case.changes else [right(kind)]  # a changed grader knows another answer
    scores = judged(kind, [Sample(case.item, case.text), *beside], **hasty, **case.changes)
    given_up = Score(0.0, note=case.kind) if kind == "code" else Score(0.0, case.kind)  # the program's own fault
    assert scores == [given_up, *[Score(1.0)] * len(beside)]


@pytest.mark.parametrize("kind", [kind for kind, cases in CASES.items() if isinstance(cases.unjudgeable, Case)])
def test_what_cannot_be_judged_is_an_error_of_its_kind_and_no_silent_zero(kind: str) -> None:
    case = CASES[kind].unjudgeable
    assert isinstance(case, Case)
    scores = judged(kind, [Sample(case.item, case.text)], **case.changes)
    assert scores == [Score(0.0, case.kind)]
