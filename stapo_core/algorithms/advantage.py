"""How good each response is beside the others of its group. Knows rewards alone."""

from __future__ import annotations

from jaxtyping import Float32
from torch import Tensor


def normalized(rewards: Float32[Tensor, "B G"]) -> Float32[Tensor, "B G"]:
    """(R - mean) / (std + 1e-6) within each group, std with n - 1; a group of equal rewards gets exactly 0."""
    centred_rewards = centred(rewards)
    return centred_rewards / (rewards.std(dim=1, keepdim=True) + 1e-6)


def centred(rewards: Float32[Tensor, "B G"]) -> Float32[Tensor, "B G"]:
    """R - mean within each group (Dr. GRPO, arXiv 2503.20783); a group of equal rewards gets exactly 0."""
    differences = rewards - rewards.mean(dim=1, keepdim=True)
    return differences.masked_fill((rewards == rewards[:, :1]).all(dim=1, keepdim=True), 0.0)
