"""Dynamic sampling with a sampler whose luck is scripted: what is kept, what is asked for, and when it gives up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stapo_core import evaluation
from stapo_core import refill as refill_module
from stapo_core.batch import Group, Prompt
from stapo_core.config import DapoConfig, StringCheckGrader
from stapo_core.graders import build_grader
from stapo_core.grading import Grading
from stapo_core.learner import Learned
from stapo_core.recording import Recorder
from stapo_core.refill import ReplaceIdle
from stapo_core.report import Report
from stapo_core.rollout import Draw, checked_sampler
from stapo_core.spool import Spool
from tests.stapo_core.tiny import make_groups, make_tokenizer, read_events

DRAW = Draw(seed=1, step=5, num_samples=4, temperature=1.0)


class ScriptedSampler:
    """An engine whose n-th call yields `teaches[n]` groups with one right answer; all other answers are wrong."""

    def __init__(self, teaches: list[int]) -> None:
        self.teaches = teaches
        self.asked: list[tuple[int, int]] = []
        self.prompts: list[int] = []

    def sample(self, prompts: Sequence[Prompt], draw: Draw) -> list[Group]:
        number = self.teaches[len(self.asked)]
        self.asked.append((len(prompts), draw.seed))
        self.prompts += [prompt.index for prompt in prompts]
        groups = make_groups(num_prompts=len(prompts), seed=len(self.asked))
        return [
            replace(
                group,
                prompt=prompt,
                rewards=(),
                responses=tuple(
                    replace(response, text="right" if place == 0 and index < number else "wrong")
                    for place, response in enumerate(group.responses)
                ),
            )
            for index, (prompt, group) in enumerate(zip(prompts, groups, strict=True))
        ]

    def load(self, weights: object, *, version: int) -> None: ...

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


def refill(tmp_path: Path, teaches: list[int], *, max_rounds: int) -> tuple[list[Group], ScriptedSampler, Path]:
    report = Report(Spool(tmp_path / "events.jsonl"), Recorder(tmp_path, make_tokenizer(), every=0))
    pool = build_grader(StringCheckGrader(type="string_check", reference="right", operation="eq"))
    sampler = ScriptedSampler(teaches)
    prompts = [group.prompt for group in make_groups(num_prompts=10)]
    replace_idle = ReplaceIdle(
        prompts, sampler=sampler, grading=Grading(pool, report), report=report, max_rounds=max_rounds
    )
    groups = replace_idle(make_groups(num_prompts=4, idle=(0, 2, 3)), DRAW)
    report.step_done(5, groups, Learned())
    return groups, sampler, tmp_path


def has_advantage(groups: list[Group]) -> list[bool]:
    return [len(set(group.rewards)) > 1 for group in groups]


def test_idle_groups_are_replaced_until_every_group_teaches(tmp_path: Path) -> None:
    groups, sampler, _ = refill(tmp_path, [2, 1], max_rounds=10)

    assert has_advantage(groups) == [True] * 4
    assert [number for number, _ in sampler.asked] == [3, 1]
    assert len({seed for _, seed in sampler.asked} | {DRAW.seed}) == 3


def test_after_the_last_round_idle_groups_fill_the_step_and_a_warning_says_so(tmp_path: Path) -> None:
    groups, sampler, run_dir = refill(tmp_path, [1, 0], max_rounds=2)

    assert has_advantage(groups) == [True, True, False, False]
    assert len(sampler.asked) == 2
    *_, warning, _ = read_events(run_dir)
    assert warning["message"] == "2 groups still have equal rewards after 2 extra rounds"


def test_no_prompt_comes_twice_into_a_step_while_there_are_others(tmp_path: Path) -> None:
    _, sampler, _ = refill(tmp_path, [0, 0, 3], max_rounds=3)  # ten prompts: 0 to 3, six others, and three again

    assert sorted(sampler.prompts[:6]) == [4, 5, 6, 7, 8, 9]
    assert len(set(sampler.prompts[6:])) == 3


def test_what_was_drawn_and_dropped_is_told(tmp_path: Path) -> None:
    drawn = [reward for group in make_groups(num_prompts=4, idle=(0, 2, 3)) for reward in group.rewards]
    _, _, run_dir = refill(tmp_path, [1, 0], max_rounds=2)

    metrics = read_events(run_dir)[-1]["metrics"]
    assert metrics["sampling/dropped_groups"] == 5.0  # of 4, 3 and 2 groups that were drawn, 4 were kept
    assert metrics["reward/mean_drawn"] == sum(drawn) / len(drawn)


def test_the_seeds_of_extra_rounds_are_those_of_nothing_else() -> None:
    rounds = DapoConfig(dynamic_sampling_rounds=100).dynamic_sampling_rounds
    assert evaluation._SEED_APART + 2**63 <= refill_module._ROUND_APART
    assert (rounds + 1) * refill_module._ROUND_APART <= checked_sampler._SEED_APART
