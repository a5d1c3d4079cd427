"""Adapters added into the weights, against peft's own merge."""

from __future__ import annotations

import torch

from stapo_core.config import LoraConfig
from stapo_core.rollout.merging import merge_adapters
from tests.stapo_core.tiny import make_policy


def test_merged_weights_are_those_that_peft_merges() -> None:
    policy = make_policy()
    policy.add_adapters(LoraConfig(rank=4, alpha=6.0))
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.normal_(std=0.1)
    merged = dict(merge_adapters(policy.weights(), scale=6.0 / 4))
    expected = policy.merged().state_dict()

    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(merged[name], tensor, atol=1e-6), name


def test_weights_without_adapters_come_out_as_they_went_in() -> None:
    weights = make_policy().weights()
    merged = dict(merge_adapters(weights, scale=0.0))
    assert merged.keys() == weights.keys()
    assert "lm_head.weight" in merged  # tied, and told all the same
    assert all(merged[name] is weights[name] for name in weights)
