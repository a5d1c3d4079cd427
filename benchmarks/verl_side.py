"""What verl makes of given rollouts. Runs in an environment that has verl and nothing of ours.

`python verl_side.py FOLDER`: reads given.safetensors and cases.json of `oracles_verl`, writes verl.safetensors. Flat
tensors hold the response tokens end to end, as the ones of `mask` lie in it: row by row.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from verl.trainer.ppo import core_algos
from verl.workers.config import ActorConfig

MODES = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm")


def main(folder: Path) -> None:
    """Answers everything that is asked."""
    given = load_file(folder / "given.safetensors")
    asked = json.loads((folder / "cases.json").read_text())
    answers: dict[str, Tensor] = {}
    for case in asked["cases"]:
        answers |= _policy_loss(case, given, asked["longest"])
    for mode in MODES:
        answers |= _aggregation(mode, given, asked["longest"])
    answers |= {**_advantages(given), **_k3(given)}
    save_file({name: answer.detach().contiguous() for name, answer in answers.items()}, folder / "verl.safetensors")


def _policy_loss(case: dict[str, Any], given: dict[str, Tensor], longest: int) -> dict[str, Tensor]:
    """The loss and its gradient with respect to the log-probs of the response tokens."""
    name, mode, mask = case["name"], case["mode"], given["mask"]
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        use_dynamic_bsz=True,
        clip_ratio_low=case["clip_low"],
        clip_ratio_high=case["clip_high"],
        clip_ratio_c=case["ceiling"],
        loss_agg_mode=mode,
        global_batch_info={"loss_scale_factor": longest},
    )
    logprobs = given["logprobs"].clone().requires_grad_()
    padded, kept = _pad(logprobs, mask), _pad(given[f"{name}.kept"], mask)
    loss, _ = core_algos.get_policy_loss_fn(case["loss"])(
        old_log_prob=_pad(given["old_logprobs"], mask),
        log_prob=padded,
        advantages=_pad(given[f"{name}.advantages"], mask),
        response_mask=kept,
        loss_agg_mode=mode,
        config=config,
    )
    if case["kl"]:
        penalty = core_algos.kl_penalty(padded, _pad(given["reference_logprobs"], mask), "k3")
        loss = loss + case["kl"] * core_algos.agg_loss(penalty, kept, mode)
    loss.backward()
    assert logprobs.grad is not None
    return {f"{name}.loss": loss, f"{name}.gradient": logprobs.grad}


def _aggregation(mode: str, given: dict[str, Tensor], longest: int) -> dict[str, Tensor]:
    values = given["values"].clone().requires_grad_()
    mask = given["mask"]
    total = core_algos.agg_loss(_pad(values, mask), mask.float(), mode, loss_scale_factor=longest)
    total.backward()
    assert values.grad is not None
    return {f"{mode}.loss": total, f"{mode}.gradient": values.grad}


def _advantages(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """One advantage for each response, of both implementations, with and without the division by the std."""
    found = {}
    for rewards in ("rewards", "equal_rewards"):
        num_groups, group_size = given[rewards].shape
        scores = given[rewards].flatten().unsqueeze(1)
        groups = np.repeat(np.arange(num_groups), group_size)
        for kind in ("grpo", "grpo_vectorized"):
            estimate = core_algos.get_adv_estimator_fn(kind)
            for by_std in (True, False):
                advantages, _ = estimate(
                    scores.clone(), torch.ones_like(scores), index=groups, norm_adv_by_std_in_grpo=by_std
                )
                found[f"{rewards}.{kind}.{'normalized' if by_std else 'centred'}"] = advantages.squeeze(1)
    return found


def _k3(given: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name in ("reference_logprobs", "far_reference_logprobs"):
        logprobs = given["logprobs"].clone().requires_grad_()
        values = core_algos.kl_penalty(logprobs, given[name], "k3")
        (gradient,) = torch.autograd.grad(values.sum(), logprobs)
        found |= {f"{name}.k3": values, f"{name}.k3_gradient": gradient}
    return found


def _pad(flat: Tensor, mask: Tensor) -> Tensor:
    """Flat tokens laid out as `mask` says, zeros elsewhere."""
    return torch.zeros(mask.shape).masked_scatter(mask.bool(), flat)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
