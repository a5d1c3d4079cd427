"""Rewards of a step: the penalty by hand, what could not be judged, and scores that teach nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stapo_core import data
from stapo_core.batch import Group, Prompt, Response
from stapo_core.build import build
from stapo_core.config import GradingConfig, NumericGrader
from stapo_core.config.graders.programs import CodeGrader
from stapo_core.graders import GraderPool, build_grader
from stapo_core.grading import FirstScores, GraderErrors, Grading, OneScore, Overlong, TrainingGrading
from stapo_core.recording import Recorder
from stapo_core.report import Report
from stapo_core.spool import Spool
from stapo_core.train import Outcome, train
from tests.stapo_core.tiny import make_groups, make_run_folder, make_tokenizer, read_config, read_events


@pytest.mark.parametrize(("num_tokens", "penalty"), [(10, 0.0), (80, 0.0), (90, -0.5), (100, -1.0)])
def test_the_penalty_falls_linearly_over_the_last_share(num_tokens: int, penalty: float) -> None:
    assert Overlong(max_tokens=100, share=0.2).penalty(num_tokens) == pytest.approx(penalty)


def test_without_a_share_nothing_is_taken() -> None:
    assert Overlong(max_tokens=100, share=0.0).penalty(100) == 0.0


@pytest.fixture
def report(tmp_path: Path) -> Iterator[Report]:
    spool = Spool(tmp_path / "events.jsonl")
    yield Report(spool, Recorder(tmp_path, make_tokenizer(), every=0))
    spool.close()


@pytest.fixture
def pool() -> Iterator[GraderPool]:
    pool = build_grader(NumericGrader(type="numeric", reference="{{item.answer}}"))
    yield pool
    pool.close()


def group(answer: str, *texts: str) -> Group:
    """Responses with these texts to a problem with this answer; one that is no number cannot be judged."""
    (blank,) = make_groups(num_prompts=1, group_size=2)
    one = blank.responses[0]
    responses = tuple(Response(one.token_ids, one.logprobs, one.entropies, text, "stop") for text in texts)
    return Group(Prompt(0, "question", (1,), {"answer": answer}), responses)


def test_up_to_the_set_share_errors_are_told_by_kind_and_the_run_goes_on(
    pool: GraderPool, report: Report, tmp_path: Path
) -> None:
    grading = Grading(pool, report, GradingConfig(max_error_share=0.5))
    graded = grading.grade([group("4", "4", "5"), group("four", "4", "5")], step=3)
    assert [each.rewards for each in graded] == [(1.0, 0.0), (0.0, 0.0)]
    (event,) = read_events(tmp_path)
    assert (event["type"], event["step"]) == ("warning", 3)
    assert "2 reference_not_a_number" in event["message"]


def test_above_the_set_share_the_run_stops_with_the_evidence(pool: GraderPool, report: Report, tmp_path: Path) -> None:
    grading = Grading(pool, report, GradingConfig(max_error_share=0.49))
    with pytest.raises(GraderErrors, match=r"2 of 4 responses of step 3 .*2 reference_not_a_number.*0\.49"):
        grading.grade([group("4", "4", "5"), group("four", "4", "5")], step=3)
    evidence = read_events(tmp_path)[-1]
    assert (evidence["type"], evidence["step"], evidence["num_responses"]) == ("grader_errors", 3, 4)
    assert evidence["errors"] == {"reference_not_a_number": 2}
    expected = {"kind": "reference_not_a_number", "prompt": "question"}
    assert evidence["examples"] == [expected | {"response": "4"}, expected | {"response": "5"}]


def test_the_share_is_that_of_the_whole_step_and_of_one_step_alone(pool: GraderPool, report: Report) -> None:
    grading = Grading(pool, report, GradingConfig(max_error_share=0.4))
    grading.grade([group("4", "4", "5", "6")], step=1)
    grading.grade([group("four", "4", "5")], step=1)  # a later round of step 1: 2 of 5
    with pytest.raises(GraderErrors, match="1 of 1 responses of step 2"):
        grading.grade([group("four", "4")], step=2)


def test_examples_are_few_and_cut(pool: GraderPool, report: Report, tmp_path: Path) -> None:
    grading = Grading(pool, report, GradingConfig(max_error_share=0.0))
    with pytest.raises(GraderErrors):
        grading.grade([group("four", *["x" * 10_000] * 9)], step=1)
    examples = read_events(tmp_path)[-1]["examples"]
    assert [len(example["response"]) for example in examples] == [500, 500, 500]


def test_training_notes_the_share_of_errors_with_the_step(pool: GraderPool, report: Report) -> None:
    rules = GradingConfig(max_error_share=1.0)
    grading = TrainingGrading(pool, report, rules, overlong=Overlong(10, 0.0), first=FirstScores(0))
    grading.grade([group("4", "4"), group("four", "4", "5", "6")], step=1)
    assert report._notes == {"grader/error_share": 0.75, "grader/errors/reference_not_a_number": 3.0}


def test_programs_that_meet_a_limit_are_counted_and_told_once_and_stop_nothing(report: Report, tmp_path: Path) -> None:
    pool = build_grader(CodeGrader(type="code", program="whole_text", timeout_s=1.0), allows_user_code=True)
    rules = GradingConfig(max_error_share=0.0)
    grading = TrainingGrading(pool, report, rules, overlong=Overlong(10, 0.0), first=FirstScores(0))
    (blank,) = make_groups(num_prompts=1, group_size=1)
    (one,) = blank.responses
    responses = tuple(
        Response(one.token_ids, one.logprobs, one.entropies, text, "stop") for text in ("while 1: pass", "f = abs")
    )
    prompt = Prompt(0, "question", (1,), {"tests": "assert f(-1) == 1"})
    try:
        graded = [grading.grade([Group(prompt, responses)], step) for step in (1, 2)]
    finally:
        pool.close()
    assert [group.rewards for (group,) in graded] == [(0.0, 1.0), (0.0, 1.0)]
    assert report._notes == {"grader/error_share": 0.0, "grader/notes/timeout": 1.0}
    (event,) = read_events(tmp_path)
    assert event["message"] == "programs that met a limit got the reward 0: 1 timeout"


def test_equal_scores_are_refused_once_there_were_so_many_and_never_after_two_that_differ() -> None:
    first = FirstScores(6)
    first.look([1.0, 1.0, 1.0])
    with pytest.raises(OneScore, match=r"all of the first 7 responses got the score 1\b"):
        first.look([1.0] * 4)
    varied = FirstScores(6)
    varied.look([0.0, 1.0])
    varied.look([1.0] * 100)
    FirstScores(0).look([1.0] * 100)


def run(run_dir: Path, **changes: Any) -> Outcome:
    config = read_config(run_dir)
    spool = Spool(run_dir / "events.jsonl")
    parts = build(config.model_copy(update=changes), run_dir, spool=spool, should_stop=lambda: False)
    try:
        return train(parts)
    finally:
        parts.grading.close()
        spool.close()


NEVER_RIGHT = {"type": "string_check", "reference": "never said", "operation": "eq"}


def test_a_run_whose_grader_gives_one_score_ends_before_an_update(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, grading={"refuse_one_score_after": 16})
    grader = type(read_config(run_dir).grader).model_validate(NEVER_RIGHT)
    with pytest.raises(OneScore, match="first 16 responses"):
        run(run_dir, grader=grader)
    assert not [event for event in read_events(run_dir) if event["type"] == "step"]


def test_with_the_limit_at_0_it_trains_all_the_same(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, grading={"refuse_one_score_after": 0})
    grader = type(read_config(run_dir).grader).model_validate(NEVER_RIGHT)
    assert run(run_dir, grader=grader) == Outcome(4, "num_steps_reached")


def test_a_run_that_the_grader_failed_goes_on_once_it_can_judge_as_if_nothing_had_been(tmp_path: Path) -> None:
    """A row that cannot be judged comes up in the third step; it is mended, and the run is resumed."""
    whole, cut = (make_run_folder(tmp_path / name, evaluation={"every_steps": 0}) for name in ("whole", "cut"))
    numeric = NumericGrader(type="numeric", reference="{{item.answer}}")
    assert run(whole, grader=numeric).step == 4
    rows = (cut.parent / "train.jsonl").read_text()
    lines = rows.splitlines()
    place = _first_row_of_step(cut, 3)
    lines[place] = json.dumps(json.loads(lines[place]) | {"answer": "no number"})
    (cut.parent / "train.jsonl").write_text("\n".join(lines))

    stopped = run(cut, grader=numeric)
    assert (stopped.reason, stopped.step) == ("grader_errors", 2)
    assert "reference_not_a_number" in stopped.message
    (cut.parent / "train.jsonl").write_text(rows)
    assert run(cut, grader=numeric) == Outcome(4, "num_steps_reached")

    assert curve(cut) == curve(whole)


def _first_row_of_step(run_dir: Path, step: int) -> int:
    """A row that the step takes and no earlier one does."""
    config = read_config(run_dir)
    taken = [data.take(24, config.seed, each, config.train.batch.num_prompts) for each in range(step)]
    return next(row for row in taken[step - 1] if not any(row in earlier for earlier in taken[: step - 1]))


def curve(run_dir: Path) -> list[tuple[int, dict[str, Any]]]:
    steps = [event for event in read_events(run_dir) if event["type"] == "step"]
    plain = ("speed/", "memory/")
    return [(each["step"], {k: v for k, v in each["metrics"].items() if not k.startswith(plain)}) for each in steps]
