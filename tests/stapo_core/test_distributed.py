"""One, two and three ranks over gloo decide the same and sum to the same gradient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from stapo_core.algorithms import _COMPOSERS
from stapo_core.batch import Piece, TokenStats
from stapo_core.distributed import Peers, connect
from stapo_core.learner import Learner
from tests.stapo_core.test_learner import ALGORITHMS, TAU_P, Rollouts, accumulate, distance, make_learner
from tests.stapo_core.tiny import make_groups, make_policy

EVERY = {**ALGORITHMS, "random": {"kind": "random", "tau_p": TAU_P}}


def test_ranks_wait_longer_for_each_other_than_grading_or_saving_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    met: dict[str, Any] = {}
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **rest: met.update(rest))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(dist, "get_rank", lambda group: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)

    assert connect(1, 2).rank == 1
    assert met["timeout"].total_seconds() >= 3600


def make_case(name: str) -> tuple[Learner, Rollouts]:
    policy = make_policy()
    rollouts = Rollouts(policy, make_groups(group_size=6, longest=14))
    return make_learner(policy, EVERY[name], max_tokens=64), rollouts


def one_rank(rank: int, folder: str) -> None:
    """What a rank of three, and before it a rank of two, makes of every case; and a fault that only one rank meets."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=3)
    two = dist.new_group([0, 1])
    if rank < 2:
        torch.save(decide_all(Peers(two)), f"{folder}/2-{rank}.pt")
    torch.save({**decide_all(Peers()), "fault": meet_a_fault(Peers())}, f"{folder}/3-{rank}.pt")
    dist.destroy_process_group()


def decide_all(ranks: Peers) -> dict[str, Any]:
    results = {}
    for name in EVERY:
        learner, rollouts = make_case(name)
        learner.scorer.ranks = ranks
        decision, gradient = accumulate(learner, rollouts)
        results[name] = (decision.selected.weights, decision.denominator, decision.loss, gradient)
    return results


def meet_a_fault(ranks: Peers) -> list[str]:
    learner, rollouts = make_case("grpo")
    learner.scorer.ranks = ranks
    score, calls = learner.policy.score, iter(range(100))

    def score_badly(pieces: Sequence[Piece], *, temperature: float) -> TokenStats:
        stats = score(pieces, temperature=temperature)
        if ranks.rank == 2 and next(calls) == 0:
            stats.logprobs.data[0] = torch.nan
        return stats

    learner.policy.score = score_badly  # type: ignore[method-assign]
    return learner.update(rollouts.groups).warnings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three real processes wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(one_rank, args=(str(folder),), nprocs=3)  # type: ignore[attr-defined, no-untyped-call]
    return folder


def test_every_algorithm_is_shown() -> None:
    assert {algorithm["kind"] for algorithm in EVERY.values()} == set(_COMPOSERS)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", EVERY)
def test_any_number_of_ranks_takes_the_same_decision_and_sums_to_the_same_gradient(
    name: str, size: int, folder: Path
) -> None:
    learner, rollouts = make_case(name)
    alone, gradient = accumulate(learner, rollouts)

    for rank in range(size):
        weights, denominator, loss, summed = torch.load(folder / f"{size}-{rank}.pt")[name]
        assert torch.equal(weights, alone.selected.weights)
        assert denominator == alone.denominator
        assert loss == pytest.approx(alone.loss, rel=1e-5)
        assert distance(summed, gradient) < 2e-6


def test_all_ranks_skip_an_update_in_which_one_meets_a_fault_and_name_it_alike(folder: Path) -> None:
    messages = {tuple(torch.load(folder / f"3-{rank}.pt")["fault"]) for rank in range(3)}

    assert len(messages) == 1
    assert "are not finite" in messages.pop()[0]
