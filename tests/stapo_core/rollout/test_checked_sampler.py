"""An engine is held to the policy's weights; here the engine is the transformers sampler with a copy of its own."""

from __future__ import annotations

import copy

import pytest
import torch

from stapo_core.batch import Prompt
from stapo_core.policy import Policy
from stapo_core.rollout import Draw, Mismatch, Stopped
from stapo_core.rollout.checked_sampler import CheckedSampler
from stapo_core.rollout.transformers_sampler import TransformersSampler
from tests.stapo_core.tiny import make_policy

PROMPT = Prompt(0, "", (5, 9, 7), {})


def make_pair() -> tuple[Policy, CheckedSampler, list[str]]:
    policy, told = make_policy(), []

    def listen(prompt: Prompt, text: str) -> None:
        told.append(text)

    engine = TransformersSampler(
        copy.deepcopy(policy.model),
        policy.tokenizer,
        max_response_tokens=30,
        on_response=listen,
        should_stop=lambda: bool(told),
    )
    return policy, CheckedSampler(engine, policy, prompt=PROMPT, temperature=1.2), told


def move(policy: Policy) -> None:
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.mul_(1.05)


def test_an_engine_that_takes_every_update_passes() -> None:
    policy, checked, told = make_pair()
    for version in range(3):
        checked.load(policy.weights(), version=version)
        assert checked.gaps(version).max() < 1e-5
        move(policy)
    assert told == []  # nobody judges what is drawn for a comparison
    with pytest.raises(Stopped):
        checked.sample([PROMPT], Draw(0, 0, 64, 1.2))
    checked.load(policy.weights(), version=3)  # the run was asked to stop; an update is still compared
    assert checked.gaps(3).max() < 1e-5


def test_an_engine_left_behind_is_caught_and_the_figure_said() -> None:
    policy, checked, _ = make_pair()
    before = {name: tensor.clone() for name, tensor in policy.weights().items()}
    move(policy)
    with pytest.raises(Mismatch, match=r"after step 4, and 0.0001 is tolerated.*set train.sampling.engine") as caught:
        checked.load(before, version=4)
    expected = checked.gaps(4).mean().item()
    assert f"differ by {expected:.3g} nats on average" in str(caught.value)


def test_a_log_prob_that_is_no_number_is_no_agreement() -> None:
    policy, checked, _ = make_pair()
    weights = dict(policy.weights())
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], torch.nan)
    with pytest.raises(Mismatch, match="nan"):
        checked.load(weights, version=1)
