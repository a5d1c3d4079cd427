"""The theory's bounds and the exact gradient norm, on every token of a real run (arXiv 2602.15620)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from stapo_core.batch import Group, TokenRecord
from stapo_core.build import build
from stapo_core.diagnostics import gradient_bounds, gradient_norms
from stapo_core.learner import Learned
from stapo_core.spool import Spool
from stapo_core.train import train
from tests.stapo_core.tiny import VOCABULARY, make_model, make_run_folder, read_config

TEMPERATURE = 0.9
ROUNDING = 1e-6
"""The statistics are sums of float32 numbers up to 1; the bounds are compared in units of the squared slope."""


@dataclass(frozen=True)
class Step:
    """One step of the run: the model before its update, the groups, and what the learner recorded of each token."""

    model: Any
    groups: list[Group]
    record: TokenRecord


@pytest.fixture(scope="module", params=["stapo", "gspo", "cispo"])
def steps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """Six fast steps of a model that begins with sharp and flat distributions."""
    run_dir = make_run_folder(
        tmp_path_factory.mktemp("theory"),
        algorithm={"kind": request.param},
        num_steps=6,
        batch={"num_prompts": 8, "group_size": 8},
        sampling={"temperature": TEMPERATURE, "max_prompt_tokens": 8, "max_response_tokens": 24},
        optimizer={"learning_rate": 0.002, "warmup_steps": 0},
        evaluation={},
        record_rollouts_every=0,
        checkpoint={"every_steps": 50},
    )
    make_model(spread=10.0, tied=False).save_pretrained(run_dir.parent / "model")
    spool = Spool(run_dir / "events.jsonl")
    run = build(read_config(run_dir), run_dir, spool=spool, should_stop=lambda: False)
    update = run.learner.update
    seen: list[Step] = []

    def update_and_note(groups: list[Group]) -> Learned:
        before = copy.deepcopy(run.learner.policy.model)
        learned = update(groups)
        seen.extend(Step(before, groups, record) for record in learned.records)
        return learned

    run.learner.update = update_and_note  # type: ignore[assignment, method-assign]
    train(run)
    run.grading.close()
    spool.close()
    return seen


def test_the_squared_gradient_lies_between_the_bounds_at_every_token(steps: list[Step]) -> None:
    assert len(steps) == 6
    for step in steps:
        moved = (step.record.slopes != 0) & step.record.is_scored
        unit = torch.ones_like(step.record.slopes)
        squared = gradient_norms(step.record.stats, unit).square()[moved]
        lower, upper = (bound[moved] for bound in gradient_bounds(step.record.stats, unit, VOCABULARY))

        assert int(moved.sum()) > 100
        assert bool((lower <= squared + ROUNDING).all())
        assert bool((squared <= upper + ROUNDING).all())


def test_the_gradient_norm_of_every_token_is_autograds_at_the_logits(steps: list[Step]) -> None:
    for step in steps:
        exact = autograd_norms(step)[step.record.is_scored]
        found = gradient_norms(step.record.stats, step.record.slopes)[step.record.is_scored].double()

        assert float((found - exact).norm() / exact.norm()) < 1e-5


def test_the_run_meets_sharp_and_flat_distributions(steps: list[Step]) -> None:
    entropies = torch.cat([step.record.stats.entropies[step.record.is_scored] for step in steps])

    assert float(entropies.min()) < 0.5
    assert float(entropies.max()) > 3.0


def autograd_norms(step: Step) -> Tensor:
    """One response at a time in float64: the gradient of slope x log p with respect to that token's logits."""
    model = step.model.double()
    slopes = torch.split(step.record.slopes.double(), step.record.tokens.lengths.tolist())
    responses = [(group.prompt, response) for group in step.groups for response in group.responses]
    norms = []
    for slope, (prompt, response) in zip(slopes, responses, strict=True):
        ids = torch.cat([torch.tensor(prompt.token_ids), response.token_ids])
        with torch.no_grad():
            hidden = model(ids[None]).logits[0, len(prompt.token_ids) - 1 : -1]
        logits = hidden.clone().requires_grad_()
        log_p = torch.log_softmax(logits / TEMPERATURE, dim=-1)
        torch.autograd.backward((slope * log_p.gather(1, response.token_ids[:, None]).squeeze(1)).sum())
        assert logits.grad is not None
        norms.append(TEMPERATURE * logits.grad.norm(dim=1))  # the theory's logits are those that softmax sees
    return torch.cat(norms)
