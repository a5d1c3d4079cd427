"""Every algorithm written again from its formula: full logits, one response at a time, plain loops, autograd.

Shares no code with the product beyond the shape of a group.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stapo_core.batch import Group


@dataclass
class Scored:
    """One response under the model: per-token tensors, `logp` with its graph."""

    logp: Tensor
    entropy: Tensor
    advantage: float
    old: Tensor
    sampler: Tensor
    reference: Tensor


def score(model: Any, group: Group, number: int, temperature: float) -> tuple[Tensor, Tensor]:
    """log p (with graph) and H of one response, from the full logits of prompt and response together."""
    prompt, response = list(group.prompt.token_ids), group.responses[number].token_ids.tolist()
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0] / temperature
    rows = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
    logp = torch.stack([rows[t, token] for t, token in enumerate(response)])
    entropy = torch.stack([-(row.exp() * row).sum() for row in rows]).detach()
    return logp, entropy


def loss(
    model: Any,
    groups: list[Group],
    algorithm: dict[str, Any],
    *,
    old: list[Tensor],
    sampler: list[Tensor],
    reference: list[Tensor] | None = None,
    temperature: float = 1.0,
    max_length: int = 20,
) -> Tensor:
    """The loss of one mini-batch; `old`, `sampler` and `reference` hold log-probs by response."""
    responses, row = [], 0
    for group in groups:
        for number in range(len(group.responses)):
            logp, entropy = score(model, group, number, temperature)
            advantage = _advantage(group.rewards, number, divide=algorithm["kind"] != "dr_grpo")
            ref = reference[row] if reference else logp.detach()
            responses.append(Scored(logp, entropy, advantage, old[row], sampler[row], ref))
            row += 1
    objectives = [_weigh(_OBJECTIVES.get(algorithm["kind"], _clipped)(r, algorithm), r, algorithm) for r in responses]
    kept = _kept(responses, algorithm)
    if algorithm["kind"] in ("grpo", "gspo"):
        return -torch.stack([o.mean() for o in objectives]).mean()
    if algorithm["kind"] == "dr_grpo":
        return -torch.stack([o.sum() for o in objectives]).sum() / (len(objectives) * max_length)
    total = torch.stack([(torch.tensor(keep) * o).sum() for keep, o in zip(kept, objectives, strict=True)]).sum()
    if algorithm["kind"] in ("justrl", "dapo", "cispo", "taco"):
        return -total / sum(len(keep) for keep in kept)
    return -total / sum(sum(keep) for keep in kept)


def _advantage(rewards: tuple[float, ...], number: int, *, divide: bool) -> float:
    if len(set(rewards)) == 1:
        return 0.0
    difference = rewards[number] - statistics.fmean(rewards)
    return difference / (statistics.stdev(rewards) + 1e-6) if divide else difference


_CLIPS = {"grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "gspo": (3e-4, 4e-4)}


def _min_clip(ratio: Tensor, response: Scored, algorithm: dict[str, Any]) -> Tensor:
    low, high = _CLIPS.get(algorithm["kind"], (0.2, 0.28))
    a = response.advantage
    return torch.stack([min(r * a, r.clamp(1 - low, 1 + high) * a) for r in ratio])


def _clipped(response: Scored, algorithm: dict[str, Any]) -> Tensor:
    return _min_clip((response.logp - response.old).exp(), response, algorithm)


def _dual(response: Scored, algorithm: dict[str, Any]) -> Tensor:
    once = _clipped(response, algorithm)
    if response.advantage >= 0:
        return once
    floor = torch.tensor(algorithm.get("dual_clip", 10.0) * response.advantage)
    return torch.stack([max(o, floor) for o in once])


def _gspo(response: Scored, algorithm: dict[str, Any]) -> Tensor:
    ratio = (response.logp - response.old).mean().exp()
    return _min_clip(ratio[None], response, algorithm).expand(len(response.logp))


def _cispo(response: Scored, algorithm: dict[str, Any]) -> Tensor:
    ratio = (response.logp - response.old).exp().detach().clamp(max=1.2)
    return ratio * response.advantage * response.logp


_OBJECTIVES: dict[str, Callable[[Scored, dict[str, Any]], Tensor]] = {
    "justrl": _dual,
    "gspo": _gspo,
    "cispo": _cispo,
}


def _weigh(objective: Tensor, response: Scored, algorithm: dict[str, Any]) -> Tensor:
    cap = algorithm.get("importance_cap")
    if cap is not None:
        objective = objective * (response.old - response.sampler).exp().clamp(max=cap)
    beta = algorithm.get("kl_coefficient", 0.0)
    d = response.reference - response.logp
    penalized: Tensor = objective - beta * (d.exp() - d - 1)
    return penalized


def _kept(responses: list[Scored], algorithm: dict[str, Any]) -> list[list[float]]:
    """The weight of every token, by the algorithm's rule."""
    kind, tau_p = algorithm["kind"], algorithm.get("tau_p", 0.002)
    tokens = [
        (r.advantage, math.exp(lp), h, lp)
        for r in responses
        for lp, h in zip(r.logp.tolist(), r.entropy.tolist(), strict=True)
    ]
    sign = -1 if kind == "negative" else 1
    rare = [sign * a > 0 and p < tau_p for a, p, _, _ in tokens]
    candidates = [h for (_, _, h, _), is_rare in zip(tokens, rare, strict=True) if is_rare]
    everyone = [h for _, _, h, _ in tokens]
    keep = [1.0] * len(tokens)
    if kind in ("stapo", "negative", "high_entropy") and candidates:
        if algorithm.get("entropy_scope") == "all_tokens":
            tau_h = float(np.quantile(np.array(everyone, np.float32), 0.8))
        else:
            tau_h = float(np.quantile(np.array(candidates, np.float32), 0.25 if kind == "high_entropy" else 0.75))
        silenced = [h > tau_h if kind == "high_entropy" else h < tau_h for h in everyone]
        keep = [0.0 if is_rare and gone else 1.0 for is_rare, gone in zip(rare, silenced, strict=True)]
    elif kind == "full_mask":
        keep = [0.0 if is_rare else 1.0 for is_rare in rare]
    elif kind == "entropy20":
        tau_h = float(np.quantile(np.array(everyone, np.float32), 0.8))
        keep = [1.0 if h >= tau_h else 0.0 for h in everyone]
    elif kind == "taco":
        surprises = [-lp - h + math.log(0.01) for _, _, h, lp in tokens]
        keep = [
            1 - 0.9 * (1 - math.exp(-s)) if a > 0 and s > 0 else 1.0
            for (a, _, _, _), s in zip(tokens, surprises, strict=True)
        ]
    rows, start = [], 0
    for response in responses:
        rows.append(keep[start : start + len(response.logp)])
        start += len(response.logp)
    return rows
