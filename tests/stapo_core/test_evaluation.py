"""pass@k by counting; several files, each scored its own way; the best step kept."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stapo_core.batch import Group, Prompt
from stapo_core.evaluation import pass_at_k
from stapo_core.rollout import Draw
from stapo_core.rollout.transformers_sampler import TransformersSampler
from tests.stapo_core.test_train import StopAfter, metrics, run
from tests.stapo_core.tiny import make_run_folder, read_events


@pytest.mark.parametrize(("right", "k"), [(0, 2), (1, 1), (2, 2), (3, 4), (5, 5)])
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer(right: int, k: int) -> None:
    samples = [True] * right + [False] * (6 - right)
    subsets = list(itertools.combinations(samples, k))

    assert pass_at_k(6, right, k) == pytest.approx(sum(any(subset) for subset in subsets) / len(subsets))


def with_files(run_dir: Path, *files: dict[str, Any], **change: Any) -> Path:
    """The run with more validation files, all of them the tiny one."""
    path = run_dir / "config.json"
    named = [{"file": str(run_dir.parent / "valid.jsonl"), **each} for each in files]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"validation_files": named} | change))
    return run_dir


def test_each_file_is_scored_with_its_own_settings_beside_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: list[Draw] = []
    sample = TransformersSampler.sample

    def sample_and_note(sampler: TransformersSampler, prompts: Sequence[Prompt], draw: Draw) -> list[Group]:
        draws.append(draw)
        return sample(sampler, prompts, draw)

    monkeypatch.setattr(TransformersSampler, "sample", sample_and_note)
    cold = {"name": "cold", "temperature": 0.05, "num_samples": 4, "max_problems": 3, "top_p": 0.9}
    run_dir = with_files(make_run_folder(tmp_path, num_steps=1), cold, {"name": "usual"})
    run(run_dir)

    first = metrics(run_dir)["evaluation", 0]
    assert (first["eval/num_problems"], first["eval/num_samples"]) == (4, 1)
    assert (first["eval/cold/num_problems"], first["eval/cold/num_samples"]) == (3, 4)
    assert (first["eval/usual/num_problems"], first["eval/usual/num_samples"]) == (4, 1)
    assert {"eval/cold/pass_at_2", "eval/cold/pass_at_4", "eval/cold/reward_mean"} <= first.keys()
    assert "eval/usual/pass_at_2" not in first
    assert [(draw.temperature, draw.num_samples) for draw in draws[:3]] == [(1.0, 1), (0.05, 4), (1.0, 1)]
    assert [draw.limits.top_p for draw in draws[:3]] == [1.0, 0.9, 1.0]
    assert len({draw.response_seed(0, 0) for draw in draws[:3]}) == 3


def test_without_the_usual_file_the_first_named_one_gives_its_metrics(tmp_path: Path) -> None:
    files = [{"name": "a", "num_samples": 2}, {"name": "b", "num_samples": 4}]
    run_dir = with_files(make_run_folder(tmp_path, num_steps=1), *files, validation_file=None)
    run(run_dir)

    first = metrics(run_dir)["evaluation", 0]
    usual = {key: value for key, value in first.items() if key.count("/") == 1}
    assert usual == {key.replace("/a/", "/"): value for key, value in first.items() if key.startswith("eval/a/")}
    assert usual["eval/num_samples"] == 2


def best_steps(run_dir: Path) -> list[int]:
    return [event["step"] for event in read_events(run_dir) if event["type"] == "checkpoint" and event["best"]]


def marked_folders(run_dir: Path) -> list[str]:
    folders = sorted((run_dir / "checkpoints").iterdir())
    return [each.name for each in folders if json.loads((each / "manifest.json").read_bytes())["best"]]


def scores(run_dir: Path) -> dict[int, float]:
    return {step: values["eval/reward_mean"] for (kind, step), values in metrics(run_dir).items() if kind != "step"}


def rising_maxima(found: dict[int, float]) -> list[int]:
    """The steps above 0 whose score exceeds every earlier one's, step 0 apart."""
    steps = [step for step in sorted(found) if step > 0]
    return [step for step in steps if all(found[step] > found[other] for other in steps if other < step)]


SCORED = {"evaluation": {"every_steps": 1, "num_samples": 4}, "checkpoint": {"every_steps": 50, "keep": 1}}


def test_the_best_checkpoint_outlives_newer_ones_and_is_marked(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, num_steps=6, **SCORED)
    run(run_dir)

    maxima = rising_maxima(scores(run_dir))
    kept = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert maxima[-1] < 6  # the seed is one whose last step is not the best, so that there is something to spare
    assert best_steps(run_dir) == maxima
    assert kept == {f"step-{maxima[-1]:06d}", "step-000006"}
    assert marked_folders(run_dir) == [f"step-{maxima[-1]:06d}"]


def test_without_keep_best_only_the_newest_stay(tmp_path: Path) -> None:
    settings = SCORED | {"checkpoint": {"every_steps": 50, "keep": 1, "keep_best": False}}
    run_dir = make_run_folder(tmp_path, num_steps=6, **settings)
    run(run_dir)

    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-000006"]
    assert best_steps(run_dir) == []


@pytest.mark.parametrize("questions", range(20, 100, 9))
def test_a_stopped_and_resumed_run_keeps_the_same_best(tmp_path: Path, questions: int) -> None:
    whole, cut = (make_run_folder(tmp_path / name, num_steps=3, **SCORED) for name in ("whole", "cut"))
    run(whole)

    assert run(cut, StopAfter(questions)).reason == "stopped"
    run(cut)

    assert scores(cut) == scores(whole)
    assert marked_folders(cut) == marked_folders(whole)
