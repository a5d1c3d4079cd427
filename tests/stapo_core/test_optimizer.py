"""Schedules and clipping by hand; the state comes back bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stapo_core.config import OptimizerConfig
from stapo_core.optimizer import Optimizer


def make_optimizer(*, num_updates: int = 10, **options: Any) -> Optimizer:
    parameters = {"matrix": nn.Parameter(torch.ones(2, 2)), "vector": nn.Parameter(torch.ones(2))}
    config = OptimizerConfig(**{"learning_rate": 0.1, "warmup_steps": 0, **options})
    return Optimizer(parameters, config, num_updates_in_all=num_updates)


def rates(optimizer: Optimizer) -> list[float]:
    found = []
    for _ in range(optimizer.num_updates_in_all):
        found.append(optimizer.learning_rate)
        optimizer.skip()
    return found


def test_warm_up_rises_linearly_and_then_stays() -> None:
    assert rates(make_optimizer(num_updates=5, warmup_steps=2)) == pytest.approx([0.05, 0.1, 0.1, 0.1, 0.1])


def test_linear_and_cosine_fall_from_the_full_rate_towards_zero() -> None:
    linear = make_optimizer(num_updates=5, warmup_steps=1, schedule="linear")
    cosine = make_optimizer(num_updates=4, schedule="cosine")

    assert rates(linear) == pytest.approx([0.1, 0.1, 0.075, 0.05, 0.025])
    assert rates(cosine) == pytest.approx([0.1, 0.085355, 0.05, 0.014645], abs=1e-6)


def test_gradients_are_scaled_down_to_the_largest_norm_and_vectors_do_not_decay() -> None:
    small, large = make_optimizer(weight_decay=0.5), make_optimizer(weight_decay=0.5)
    for optimizer, factor in ((small, 0.25), (large, 100.0)):
        for parameter in optimizer.parameters.values():
            parameter.grad = torch.full_like(parameter, factor)
        norm = optimizer.scale_gradients(1.0)
        optimizer.step(norm)

    assert norm == pytest.approx(100 * 6**0.5)
    # the first AdamW step moves by lr sign(g); only the matrix has decayed by lr x 0.5 first
    assert small.parameters["matrix"][0, 0].item() == pytest.approx(0.95 - 0.1, abs=1e-5)
    assert small.parameters["vector"][0].item() == pytest.approx(0.9, abs=1e-5)
    moment = large.state()["exp_avg/vector"][0].item()
    assert moment == pytest.approx(0.1 / 6**0.5, rel=1e-4)  # (1 - beta1) x clipped gradient


def test_a_restored_optimizer_goes_on_bit_for_bit() -> None:
    one, other = make_optimizer(), make_optimizer()

    def move(optimizer: Optimizer, seed: int) -> None:
        source = torch.Generator().manual_seed(seed)
        for parameter in optimizer.parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=source)
        optimizer.step(optimizer.scale_gradients(1.0))

    move(one, 1)
    other.load_state(one.state(), num_updates=one.num_updates)
    with torch.no_grad():
        for name, parameter in other.parameters.items():
            parameter.copy_(one.parameters[name])
    move(one, 2)
    move(other, 2)

    assert other.num_updates == 2
    assert all(torch.equal(one.parameters[name], other.parameters[name]) for name in one.parameters)
    assert all(torch.equal(value, other.state()[name]) for name, value in one.state().items())
