"""What the engine computes with the weights it was given is what the learner computes; else that is said."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stapo_core.batch import Group, Prompt
from stapo_core.config import LoraConfig
from stapo_core.policy import Policy
from stapo_core.rollout import Draw, EngineUnusable, Mismatch
from stapo_core.rollout.checked_sampler import TOLERANCES, CheckedSampler
from stapo_core.rollout.vllm_sampler import VllmSampler
from tests.stapo_core.tiny import VOCABULARY
from tests.vllm.conftest import open_engine
from tests.vllm.models import make_folder

Pair = tuple[VllmSampler, Policy]


def make_prompts(*lengths: int) -> list[Prompt]:
    """The third and every later one begin as the second does, so that they share its keys and values."""
    source = random.Random(5)
    words = [source.randrange(3, VOCABULARY) for _ in range(max(lengths))]
    return [Prompt(index, "", tuple(words[:length]), {}) for index, length in enumerate(lengths)]


def move(policy: Policy, version: int) -> None:
    """One update: every weight moves, by as much as a few hundred steps of training would."""
    noise = torch.Generator().manual_seed(version)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.01)


def checked(pair: Pair) -> CheckedSampler:
    (prompt,) = make_prompts(7)
    return CheckedSampler(*pair, prompt=prompt, temperature=0.8)


@torch.no_grad()
def full_forward(policy: Policy, group: Group, place: int, temperature: float) -> Tensor:
    """Log-probs of a response by the model's own forward over prompt and response: no cache, no head of ours."""
    prompt, response = list(group.prompt.token_ids), group.responses[place].token_ids
    logits = policy.model(input_ids=torch.tensor([[*prompt, *response.tolist()]])).logits[0, len(prompt) - 1 : -1]
    chosen: Tensor = (logits.double() / temperature).log_softmax(-1).gather(-1, response[:, None])[:, 0]
    return chosen


def test_log_probs_are_the_learners_after_each_of_ten_updates(pair: Pair) -> None:
    """Prompts of more than a block, so that keys and values of old weights would be noticed too."""
    sampler, policy = pair
    prompts, before = make_prompts(5, 160, 290, 160), policy.model.get_output_embeddings().weight.detach().clone()
    for version in range(1, 11):
        sampler.sleep()
        move(policy, version)
        sampler.wake()
        checked(pair).load(policy.weights(), version=version)
        for group in sampler.sample(prompts, Draw(3, version, num_samples=3, temperature=0.8)):
            for place, response in enumerate(group.responses):
                assert (full_forward(policy, group, place, 0.8) - response.logprobs).abs().max() < 1e-5
        assert checked(pair).gaps(version).max() < 1e-5
    assert (policy.model.get_output_embeddings().weight - before).abs().mean() > 0.01


@pytest.mark.parametrize("stale", ["lm_head.weight", "model.layers.1.mlp.down_proj.weight"])
def test_a_weight_that_the_engine_kept_is_caught_and_the_figure_said(pair: Pair, stale: str) -> None:
    _, policy = pair
    move(policy, 11)
    weights = policy.weights()
    del weights[stale]
    with pytest.raises(Mismatch, match=r"differ by \d\S* nats .* after step 11, and 0.0001 is tolerated.*engine to"):
        checked(pair).load(weights, version=11)
    checked(pair).load(policy.weights(), version=11)


def test_adapters_are_merged_into_what_the_engine_is_given(tmp_path: Path) -> None:
    with open_engine(make_folder(tmp_path, tied=True), lora=LoraConfig(rank=4, alpha=6.0)) as pair:
        for version in (1, 2):
            move(pair[1], version)
            checked(pair).load(pair[1].weights(), version=version)
        assert checked(pair).gaps(3).max() < 1e-5
        assert len(pair[1].trainable()) == 2 * 7 * 2  # two halves on seven layers in each of two blocks


def test_in_bfloat16_the_difference_is_that_of_rounding(tmp_path: Path) -> None:
    with open_engine(make_folder(tmp_path, tied=True), precision="bfloat16") as pair:
        gaps = []
        for version in (1, 2, 3):
            move(pair[1], version)
            checked(pair).load(pair[1].weights(), version=version)
            gaps.append(checked(pair).gaps(version).mean().item())
        assert 0 < max(gaps) < TOLERANCES[torch.bfloat16] / 5


def test_a_model_whose_heads_are_too_narrow_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, tied=True, width=16)  # for which vLLM has no kernel on a CPU
    with pytest.raises(EngineUnusable, match=r"head_dim=16.*; set engine to transformers"), open_engine(folder):
        pass
