"""The learner's gradient is the formula's, however the mini-batch is cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stapo_core.algorithms import Decision, advantage, compose
from stapo_core.batch import Group, Piece, Response, TokenStats
from stapo_core.diagnostics import diagnose
from stapo_core.learner import Diverged, Learner
from stapo_core.minibatch import MiniBatch
from stapo_core.policy import Policy
from stapo_core.rollout import Stopped
from tests.stapo_core import naive
from tests.stapo_core.tiny import VOCABULARY, make_groups, make_policy, run_config

TEMPERATURE = 0.8
TAU_P = 0.01
ALGORITHMS: dict[str, dict[str, Any]] = {
    "stapo": {"kind": "stapo", "tau_p": TAU_P},
    "stapo all tokens": {"kind": "stapo", "tau_p": TAU_P, "entropy_scope": "all_tokens"},
    "grpo": {"kind": "grpo"},
    "grpo with kl": {"kind": "grpo", "kl_coefficient": 0.05},
    "justrl": {"kind": "justrl", "dual_clip": 1.5},
    "entropy20": {"kind": "entropy20"},
    "dapo": {"kind": "dapo"},
    "dr_grpo": {"kind": "dr_grpo"},
    "gspo": {"kind": "gspo"},
    "cispo": {"kind": "cispo"},
    "taco": {"kind": "taco"},
    "full_mask": {"kind": "full_mask", "tau_p": TAU_P},
    "high_entropy": {"kind": "high_entropy", "tau_p": TAU_P},
    "negative": {"kind": "negative", "tau_p": TAU_P},
    "stapo with importance": {"kind": "stapo", "tau_p": TAU_P, "importance_cap": 1.05},
}
RATIO_SPREAD = 0.3


class Rollouts:
    """Graded groups with the sampler's, the old and the reference log-probs of every response."""

    def __init__(self, policy: Policy, groups: list[Group]) -> None:
        noise = torch.Generator().manual_seed(3)
        self.groups: list[Group] = []
        self.sampler: list[Tensor] = []
        self.old: list[Tensor] = []
        self.reference: list[Tensor] = []
        for group in groups:
            responses = []
            for number, response in enumerate(group.responses):
                with torch.no_grad():
                    logp, entropy = naive.score(policy.model, group, number, TEMPERATURE)
                self.old.append(logp + RATIO_SPREAD * torch.randn(logp.shape, generator=noise))
                self.reference.append(logp + RATIO_SPREAD * torch.randn(logp.shape, generator=noise))
                self.sampler.append(self.old[-1] + 0.1 * torch.randn(logp.shape, generator=noise))
                responses.append(replace(response, logprobs=self.sampler[-1], entropies=entropy))
            self.groups.append(replace(group, responses=tuple(responses)))


def make_learner(policy: Policy, algorithm: dict[str, Any], *, max_tokens: int = 4096, **batch: Any) -> Learner:
    sizes = {"num_prompts": 4, "group_size": 4, "max_tokens_per_microbatch": max_tokens, **batch}
    sampling = {"max_prompt_tokens": 8, "max_response_tokens": 20, "temperature": TEMPERATURE}
    optimizer = {"learning_rate": 1e-3, "warmup_steps": 0}
    config = run_config(algorithm, batch=sizes, sampling=sampling, optimizer=optimizer)
    return Learner(policy, compose(config), config=config.train, num_steps=10)


def accumulate(learner: Learner, rollouts: Rollouts) -> tuple[Decision, dict[str, Tensor]]:
    """The decision on the rollouts as one mini-batch, and the gradient of its loss."""
    rewards = torch.tensor([group.rewards for group in rollouts.groups])
    batch = MiniBatch.lay_out(rollouts.groups, learner.algorithm.advantage(rewards), device=torch.device("cpu"))
    batch.set_old(torch.cat(rollouts.old))
    batch.set_reference(torch.cat(rollouts.reference))
    decision = learner.accumulate(batch)
    learner.optimizer.scale_gradients(1 / decision.denominator)
    gradients = {name: parameter.grad for name, parameter in learner.optimizer.parameters.items()}
    learner.optimizer.zero_gradients()
    return decision, {name: gradient for name, gradient in gradients.items() if gradient is not None}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm, all parameters together."""
    assert one.keys() == other.keys()
    difference = torch.stack([(one[name] - other[name]).norm() for name in one]).norm()
    return float(difference / torch.stack([value.norm() for value in other.values()]).norm())


@pytest.mark.parametrize(("name", "tied"), [*((name, True) for name in ALGORITHMS), ("stapo", False), ("gspo", False)])
def test_loss_and_gradient_are_those_of_the_formula(name: str, tied: bool) -> None:
    policy = make_policy(tied=tied)
    rollouts = Rollouts(policy, make_groups())

    decision, gradient = accumulate(make_learner(policy, ALGORITHMS[name]), rollouts)

    expected = naive.loss(
        policy.model,
        rollouts.groups,
        ALGORITHMS[name],
        old=rollouts.old,
        sampler=rollouts.sampler,
        reference=rollouts.reference,
        temperature=TEMPERATURE,
    )
    torch.autograd.backward(expected)
    assert decision.loss == pytest.approx(expected.item(), rel=1e-5)
    assert distance(gradient, {n: p.grad for n, p in policy.trainable().items() if p.grad is not None}) < 1e-5


@pytest.mark.parametrize("name", [*ALGORITHMS, "random"])
def test_no_cut_into_micro_batches_changes_the_gradient(name: str) -> None:
    algorithm = ALGORITHMS.get(name, {"kind": "random", "tau_p": TAU_P})
    policy = make_policy()
    rollouts = Rollouts(policy, make_groups(group_size=6, longest=14))
    whole, gradient = accumulate(make_learner(policy, algorithm), rollouts)

    for max_tokens in (64, 100, 160):  # the first cuts groups, the second leaves one in each, the third takes two
        cut, other = accumulate(make_learner(policy, algorithm, max_tokens=max_tokens), rollouts)
        assert torch.allclose(cut.selected.weights, whole.selected.weights, atol=1e-5)
        assert cut.denominator == whole.denominator
        assert distance(other, gradient) < 2e-6


def test_the_rollouts_of_these_tests_silence_some_candidates_and_clip_some_tokens() -> None:
    policy = make_policy()
    decision, _ = accumulate(make_learner(policy, ALGORITHMS["stapo"]), Rollouts(policy, make_groups()))

    assert 2 <= int((decision.selected.weights == 0).sum()) < int(decision.selected.weights.numel() / 2)
    assert bool(decision.objective.clipped_low.any())
    assert bool(decision.objective.clipped_high.any())


def test_groups_without_advantage_are_not_forwarded_and_stay_in_the_denominator() -> None:
    policy = make_policy()
    rollouts = Rollouts(policy, make_groups(idle=(0, 1, 3)))
    learner = make_learner(policy, {"kind": "dapo"})
    rows: list[int] = []
    score = policy.score

    def score_and_note(pieces: Sequence[Piece], *, temperature: float) -> TokenStats:
        rows.extend(row for piece in pieces for row in piece.rows)
        return score(pieces, temperature=temperature)

    policy.score = score_and_note  # type: ignore[method-assign]

    decision, _ = accumulate(learner, rollouts)

    assert sorted(rows) == [8, 9, 10, 11]
    assert decision.denominator == sum(len(r.token_ids) for group in rollouts.groups for r in group.responses)


def test_the_second_mini_batch_is_compared_with_the_policy_before_the_first() -> None:
    policy = make_policy()
    rollouts = Rollouts(policy, make_groups(num_prompts=2, idle=()))
    learner = make_learner(policy, {"kind": "grpo"}, num_prompts=2, num_minibatches=2)
    with torch.no_grad():
        before = [naive.score(policy.model, rollouts.groups[1], n, TEMPERATURE)[0] for n in range(4)]

    learned = learner.update(rollouts.groups)

    first, second = learned.records
    assert torch.equal(first.tokens.logprobs, first.tokens.old_logprobs)
    assert torch.allclose(second.tokens.old_logprobs, torch.cat(before), atol=1e-5)
    assert not torch.allclose(second.tokens.logprobs, second.tokens.old_logprobs, atol=1e-5)


def test_tokens_that_were_not_scored_before_the_first_update_are_not_compared_with_it() -> None:
    """A selection over all entropies has idle groups scored, but only after the policy has moved."""
    policy = make_policy()
    groups = [
        replace(group, responses=tuple(replace(r, logprobs=r.logprobs - 9.0) for r in group.responses))
        for group in Rollouts(policy, make_groups(idle=(3,))).groups
    ]
    learner = make_learner(policy, {"kind": "entropy20"}, num_minibatches=4)

    *_, last = learner.update(groups).records

    metrics = diagnose(last)
    assert bool(last.is_scored.all())
    assert metrics["policy/ratio_max"] == 1.0
    assert metrics["sampler/logp_diff_mean"] is None


@pytest.mark.parametrize(("offset", "is_exact"), [(0.0, True), (1e8, False), (-1e12, False)])
def test_advantages_hang_on_differences_of_rewards_however_large_the_rewards_are(offset: float, is_exact: bool) -> None:
    policy = make_policy()
    (group,) = make_groups(num_prompts=1)
    moved = replace(group, rewards=tuple(offset + reward for reward in (0.0, 1.0, 1.0, 2.0)))

    (record,) = make_learner(policy, {"kind": "grpo"}, num_prompts=1).update([moved]).records

    found = [record.tokens.advantages[record.tokens.rows == row][0].item() for row in range(4)]
    assert found == pytest.approx([-1 / (2 / 3) ** 0.5, 0.0, 0.0, 1 / (2 / 3) ** 0.5], rel=1e-5)
    if is_exact:
        rewards = torch.tensor([moved.rewards], dtype=torch.float32)
        assert found == advantage.normalized(rewards)[0].tolist()


def test_a_second_pass_compares_with_the_policy_before_the_first() -> None:
    policy = make_policy()
    rollouts = Rollouts(policy, make_groups(idle=()))
    learner = make_learner(policy, {"kind": "grpo"}, num_passes=2)
    with torch.no_grad():
        before = [naive.score(policy.model, group, n, TEMPERATURE)[0] for group in rollouts.groups for n in range(4)]

    (record,) = learner.update(rollouts.groups).records

    assert torch.allclose(record.tokens.old_logprobs, torch.cat(before), atol=1e-5)
    assert not torch.allclose(record.tokens.logprobs, record.tokens.old_logprobs, atol=1e-5)
    assert learner.optimizer.num_updates == 2


def blinded(policy: Policy, *, calls: set[int]) -> None:
    """Has the policy's answer to these of its calls, counted from 1, be no number."""
    score, number = policy.score, iter(range(1, 100))

    def score_and_fail(pieces: Sequence[Piece], *, temperature: float) -> TokenStats:
        stats = score(pieces, temperature=temperature)
        return replace(stats, logprobs=stats.logprobs * torch.nan) if next(number) in calls else stats

    policy.score = score_and_fail  # type: ignore[method-assign]


def test_what_went_wrong_in_an_earlier_pass_is_told_and_the_rest_is_learned_from() -> None:
    policy = make_policy()
    groups = Rollouts(policy, make_groups(num_prompts=2, idle=())).groups
    learner = make_learner(policy, {"kind": "grpo"}, num_prompts=2, num_minibatches=2, num_passes=3)
    blinded(policy, calls={2})  # the second mini-batch's old log-probs come first

    learned = learner.update(groups)

    assert [warning.split(" (")[0] for warning in learned.warnings] == [
        "an update was skipped because the log-probs of micro-batch 1 of 1"
    ]
    assert not learned.is_whole
    assert len(learned.records) == 1  # the first has no finite log-probs of the policy before it moved
    assert bool(learned.records[0].tokens.old_logprobs.isfinite().all())
    assert learner.counters.num_skipped_in_a_row == 0
    assert learner.optimizer.num_updates == 6


def test_after_a_skipped_update_a_stop_waits_until_the_step_is_done() -> None:
    policy = make_policy()
    groups = Rollouts(policy, make_groups(num_prompts=2, idle=())).groups
    learner = make_learner(policy, {"kind": "grpo"}, num_prompts=2, num_minibatches=2)
    blinded(policy, calls={2})
    answers = iter([False, False])
    learner.scorer.should_stop = lambda: next(answers, True)

    learned = learner.update(groups)

    assert (len(learned.warnings), len(learned.records)) == (1, 1)


def weights_of(policy: Policy) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}


def test_a_step_whose_groups_all_lack_an_advantage_is_skipped_and_says_so() -> None:
    policy = make_policy()
    learner = make_learner(policy, {"kind": "stapo"})
    before = weights_of(policy)

    learned = learner.update(Rollouts(policy, make_groups(idle=(0, 1, 2, 3))).groups)

    assert learned.warnings == [
        "an update was skipped: in every group all rewards are equal, so there is no advantage to learn from"
    ]
    assert all(torch.equal(before[name], parameter) for name, parameter in policy.trainable().items())


def test_a_step_of_which_everything_is_silenced_is_skipped_and_says_so() -> None:
    policy = make_policy()
    group = make_groups(num_prompts=1, idle=())[0]
    with torch.no_grad():
        logp = [naive.score(policy.model, group, number, TEMPERATURE)[0] for number in range(4)]
    rare = min(range(4), key=lambda number: logp[number][0].item())
    first = Response(group.responses[rare].token_ids[:1], torch.zeros(1), torch.zeros(1), text="", finish="length")
    good = replace(group, responses=(first,) * 3, rewards=(1.0, 1.0, 0.0))
    learner = make_learner(policy, {"kind": "full_mask", "tau_p": 0.9}, num_prompts=1)
    learner.algorithm = replace(learner.algorithm, advantage=torch.ones_like)  # so that no response is bad
    before = weights_of(policy)

    learned = learner.update([good])

    assert learned.warnings == ["an update was skipped: every token is silenced"]
    assert learned.decisions[0].loss == 0.0
    assert all(torch.equal(before[name], parameter) for name, parameter in policy.trainable().items())


def test_a_gradient_that_is_not_finite_skips_the_update_and_names_the_micro_batch() -> None:
    policy = make_policy(tied=False)
    groups = Rollouts(policy, make_groups(num_prompts=3, group_size=6, longest=14, idle=())).groups
    poisoned = replace(groups[1].prompt, token_ids=(VOCABULARY - 1, 5))
    groups = [_without_last_word(groups[0]), replace(groups[1], prompt=poisoned), _without_last_word(groups[2])]
    groups[1] = replace(_without_last_word(groups[1]), prompt=poisoned)
    learner = make_learner(policy, {"kind": "grpo"}, num_prompts=3, group_size=6, max_tokens=100)
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[VOCABULARY - 1] = torch.nan
    before = weights_of(policy)

    learned = learner.update(groups)

    assert not learned.is_whole
    assert len(learned.warnings) == 1
    assert re.fullmatch(
        r"an update was skipped because the log-probs of micro-batch \d of 3 \(training rows 1\) are not finite",
        learned.warnings[0],
    )
    assert all(same(before[name], parameter) for name, parameter in policy.trainable().items())


def _without_last_word(group: Group) -> Group:
    responses = [replace(r, token_ids=r.token_ids.clamp(max=VOCABULARY - 2)) for r in group.responses]
    prompt = replace(group.prompt, token_ids=tuple(min(i, VOCABULARY - 2) for i in group.prompt.token_ids))
    return replace(group, prompt=prompt, responses=tuple(responses))


def same(one: Tensor, other: Tensor) -> bool:
    return bool(torch.equal(one.nan_to_num(nan=7.0), other.detach().nan_to_num(nan=7.0)))


def test_an_infinite_gradient_of_finite_log_probs_names_its_micro_batch_too() -> None:
    policy = make_policy()
    groups = Rollouts(policy, make_groups(num_prompts=3, group_size=6, longest=14, idle=())).groups
    learner = make_learner(policy, {"kind": "grpo"}, num_prompts=3, group_size=6, max_tokens=100)
    weight = policy.model.base_model.layers[0].mlp.down_proj.weight
    places = iter(range(100))
    weight.register_hook(lambda gradient: gradient * (torch.inf if next(places) % 3 == 1 else 1.0))

    learned = learner.update(groups)

    assert re.fullmatch(
        r"an update was skipped because the gradient of micro-batch 2 of 3 \(training rows \d\) is not finite",
        learned.warnings[0],
    )


def test_three_updates_in_a_row_that_are_not_finite_end_the_run() -> None:
    policy = make_policy()
    learner = make_learner(policy, {"kind": "grpo"})
    groups = Rollouts(policy, make_groups()).groups
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.fill_(torch.inf)

    learner.update(groups)
    learner.update(groups)
    with pytest.raises(Diverged, match="3 updates in a row"):
        learner.update(groups)


def test_a_stop_between_micro_batches_leaves_the_weights_and_no_gradient() -> None:
    policy = make_policy()
    learner = make_learner(policy, {"kind": "stapo"}, max_tokens=64)
    answers = iter([False, False, True])
    learner.scorer.should_stop = lambda: next(answers)
    before = weights_of(policy)

    with pytest.raises(Stopped):
        learner.update(Rollouts(policy, make_groups()).groups)

    assert all(torch.equal(before[name], parameter) for name, parameter in policy.trainable().items())
    assert all(parameter.grad is None for parameter in policy.trainable().values())
