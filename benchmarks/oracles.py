"""Our token statistics and whole-model gradients against TRL's and Liger's on the same rollouts.

Knows the peers' insides, which they may change: a failure here says that one of the two moved. Rollouts are random
tokens of unequal lengths, and the old policy differs from the current one, so that ratios clip on both sides.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss
from torch import Tensor
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from benchmarks.agreement import Agreement, relative, report
from benchmarks.run_trl import make_trainer
from benchmarks.workloads import GROUP_SIZE, NUM_PROMPTS, SIZES, WORKLOADS, prepare
from stapo_core.algorithms import compose
from stapo_core.batch import Group, Prompt, Response
from stapo_core.config import RunConfig
from stapo_core.learner import Learner
from stapo_core.minibatch import MiniBatch
from stapo_core.policy import Policy
from stapo_core.token_stats import Head, token_stats

_LONGEST = 24
_CLIPS = {
    "grpo": {"kind": "grpo", "clip_low": 0.2, "clip_high": 0.28},
    "dapo": {"kind": "dapo", "clip_low": 0.2, "clip_high": 0.28, "dynamic_sampling_rounds": 0, "overlong_share": 0.0},
}


@dataclass(frozen=True, slots=True)
class Rollouts:
    """The same responses as groups, and as the peers want them: prompts padded left, completions right."""

    groups: list[Group]
    old_logprobs: Tensor
    advantages: Tensor
    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor

    @property
    def old_padded(self) -> Tensor:
        """The old log-probs in the peers' shape."""
        padded = torch.zeros(self.completion_mask.shape)
        padded[self.completion_mask.bool()] = self.old_logprobs
        return padded


def main() -> int:
    """Prints every relative difference; 1 when one exceeds the tolerance."""
    with tempfile.TemporaryDirectory(prefix="stapo-bench-") as scratch:
        folder = Path(scratch)
        prepare(folder, SIZES["tiny"], WORKLOADS["fixed"])
        found = {**_statistics(), **_gradients(folder)}
    return report([Agreement(what, peer, difference) for (what, peer), difference in found.items()])


def _statistics() -> dict[tuple[str, str], float]:
    source = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(512, 64, generator=source), torch.randn(8192, 64, generator=source).mul_(0.3)
    targets = torch.randint(0, 8192, (512,), generator=source)
    pushed = torch.randn(512, generator=source)
    hidden.requires_grad_()
    weight.requires_grad_()
    outputs = ("entropy", "log_sum_sq_probs")
    logprobs, entropies, log_squares, *_ = ChunkedLogProbFunction.apply(
        hidden, weight, None, targets, 0.9, 128, None, 1.0, outputs
    )
    theirs = torch.autograd.grad(logprobs, (hidden, weight), pushed)
    stats = token_stats(hidden, Head(weight, temperature=0.9), targets)
    ours = torch.autograd.grad(stats.logprobs, (hidden, weight), pushed)
    return {
        ("log p", "TRL's kernel"): relative(stats.logprobs, logprobs),
        ("entropy", "TRL's kernel"): relative(stats.entropies, entropies),
        ("sum of p squared", "TRL's kernel"): relative(stats.sum_squares, log_squares.exp()),
        ("gradient of log p at the hidden states", "TRL's kernel"): relative(ours[0], theirs[0]),
        ("gradient of log p at the head", "TRL's kernel"): relative(ours[1], theirs[1]),
    }


def _gradients(folder: Path) -> dict[tuple[str, str], float]:
    policy = Policy.load(folder / "model", device=torch.device("cpu"))
    differences = {}
    for kind in _CLIPS:
        learner = _learner(folder, policy, kind)
        rollouts = _draw(learner)
        ours = _our_gradient(learner, rollouts)
        differences[f"gradient of {kind}", "TRL's _compute_loss"] = relative(
            ours, _trl_gradient(folder, kind, rollouts)
        )
        differences[f"gradient of {kind}", "Liger's fused loss"] = relative(
            ours, _liger_gradient(folder, kind, rollouts)
        )
    return differences


def _learner(folder: Path, policy: Policy, kind: str) -> Learner:
    config = RunConfig.model_validate(
        {
            "model": folder / "model",
            "training_file": folder / "train.jsonl",
            "grader": {"type": "string_check", "operation": "like", "reference": "-"},
            "train": {
                "algorithm": _CLIPS[kind],
                "batch": {"num_prompts": NUM_PROMPTS, "group_size": GROUP_SIZE, "max_tokens_per_microbatch": 200},
                "sampling": {"max_prompt_tokens": 16, "max_response_tokens": _LONGEST},
            },
        }
    )
    return Learner(policy, compose(config), config=config.train, num_steps=1)


def _draw(learner: Learner) -> Rollouts:
    """Random rollouts; the old log-probs are the current ones and noise of 0.3 nats."""
    source = torch.Generator().manual_seed(0)

    def ids(most: int) -> Tensor:
        length = int(torch.randint(2, most + 1, (1,), generator=source))
        return torch.randint(3, SIZES["tiny"].vocabulary, (length,), generator=source)

    groups = []
    for index in range(NUM_PROMPTS):
        prompt = Prompt(index=index, text="", token_ids=tuple(ids(16).tolist()), item={})
        drawn = [ids(_LONGEST) for _ in range(GROUP_SIZE)]
        nothing = [torch.zeros(len(token_ids)) for token_ids in drawn]
        responses = tuple(Response(t, z, z, text="", finish="stop") for t, z in zip(drawn, nothing, strict=True))
        groups.append(Group(prompt, responses, tuple(float(i % 3 == index % 3) for i in range(GROUP_SIZE))))
    advantages = learner.algorithm.advantage(torch.tensor([group.rewards for group in groups]))
    batch = MiniBatch.lay_out(groups, advantages, device=torch.device("cpu"))
    learner.scorer.score_all(batch, batch.rows_of_groups(with_advantage=True))
    noise = 0.3 * torch.randn(len(batch.tokens.logprobs), generator=source)
    rows = [(group.prompt.token_ids, response.token_ids) for group in groups for response in group.responses]
    prompt_ids, prompt_mask = _pad([torch.tensor(prompt) for prompt, _ in rows], side="left")
    completion_ids, completion_mask = _pad([token_ids for _, token_ids in rows], side="right")
    return Rollouts(
        groups,
        batch.tokens.logprobs + noise,
        advantages,
        prompt_ids,
        prompt_mask,
        completion_ids,
        completion_mask,
    )


def _our_gradient(learner: Learner, rollouts: Rollouts) -> dict[str, Tensor]:
    batch = MiniBatch.lay_out(rollouts.groups, rollouts.advantages, device=torch.device("cpu"))
    batch.set_old(rollouts.old_logprobs)
    decision = learner.accumulate(batch)
    learner.optimizer.scale_gradients(1.0 / decision.denominator)
    gradient = _gradient(learner.policy.model)
    learner.optimizer.zero_gradients()
    return gradient


def _trl_gradient(folder: Path, kind: str, rollouts: Rollouts) -> dict[str, Tensor]:
    trainer = make_trainer(folder, _LONGEST, loss_type=kind)
    trainer.model.train()
    # The whole batch is one micro-batch here; each loss type is divided by what then comes out as 1.
    accumulated = trainer.args.steps_per_generation if kind == "dapo" else 1
    trainer.current_gradient_accumulation_steps = accumulated
    inputs = {
        "prompt_ids": rollouts.prompt_ids,
        "prompt_mask": rollouts.prompt_mask,
        "completion_ids": rollouts.completion_ids,
        "completion_mask": rollouts.completion_mask,
        "advantages": rollouts.advantages.flatten(),
        "old_per_token_logps": rollouts.old_padded,
        "num_items_in_batch": rollouts.completion_mask.sum(),
    }
    trainer._compute_loss(trainer.model, inputs).backward()
    return _gradient(trainer.model)


def _liger_gradient(folder: Path, kind: str, rollouts: Rollouts) -> dict[str, Tensor]:
    policy = Policy.load(folder / "model", device=torch.device("cpu"))
    tokens = torch.cat([rollouts.prompt_ids, rollouts.completion_ids], dim=1)
    mask = torch.cat([rollouts.prompt_mask, rollouts.completion_mask], dim=1)
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    hidden = policy.model.base_model(input_ids=tokens, attention_mask=mask, position_ids=places).last_hidden_state
    first = rollouts.prompt_ids.shape[1] - 1
    loss = LigerFusedLinearGRPOLoss(
        beta=0.0, compiled=False, use_ref_model=False, epsilon_low=0.2, epsilon_high=0.28, loss_type=kind
    )(
        hidden[:, first:-1],
        policy.head(1.0).weight,
        rollouts.completion_ids,
        rollouts.completion_mask,
        rollouts.advantages.flatten(),
        old_per_token_logps=rollouts.old_padded,
    )[0]
    loss.backward()
    return _gradient(policy.model)


def _gradient(model: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _pad(rows: list[Tensor], *, side: str) -> tuple[Tensor, Tensor]:
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side=side)
    ones = [torch.ones_like(row) for row in rows]
    return padded, torch.nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=side)
