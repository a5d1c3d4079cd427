"""One pass over the vocabulary says what the full softmax says, and never holds the logits of all tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stapo_core import token_stats as room
from stapo_core.token_stats import Head, token_stats


def draw(num_tokens: int = 100, width: int = 16, vocabulary: int = 50, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    hidden = 2 * torch.randn(num_tokens, width, generator=source)
    weight = torch.randn(vocabulary, width, generator=source)
    return hidden, weight, torch.randint(0, vocabulary, (num_tokens,), generator=source)


def direct(hidden: Tensor, head: Head, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits = hidden @ head.weight.T * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    log_p = torch.log_softmax(logits / head.temperature, dim=1)
    p = log_p.exp()
    chosen = log_p.gather(1, targets[:, None]).squeeze(1)
    return chosen, -(p * log_p).sum(1), p.square().sum(1), (p.square() * log_p).sum(1)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hot": {"temperature": 0.7},
    "capped": {"softcap": 3.0},
    "capped, hot and scaled": {"softcap": 3.0, "temperature": 1.5, "scale": 0.5},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_statistics_and_gradients_equal_the_full_softmax(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_CPU_TILE_ROWS", 32)  # 100 tokens make four rows of tiles, the last of 4 tokens
    monkeypatch.setattr(room, "_CPU_TILE_BYTES", 4 * 32 * 12)  # 50 words make five columns, the last of 2 words
    hidden, weight, targets = draw()
    hidden.requires_grad_()
    weight.requires_grad_()
    head = Head(weight, **SETTINGS[name])

    stats = token_stats(hidden, head, targets)
    gradients = torch.autograd.grad(stats.logprobs.sin().sum(), [hidden, weight])
    expected = direct(hidden, head, targets)
    exact_gradients = torch.autograd.grad(expected[0].sin().sum(), [hidden, weight])

    found = (stats.logprobs, stats.entropies, stats.sum_squares, stats.sum_squares_log)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=3e-6, rtol=1e-5)
    for gradient, exact in zip(gradients, exact_gradients, strict=True):
        assert (gradient - exact).norm() / exact.norm() < 5e-6


def test_uniform_logits_give_the_logarithm_of_the_vocabulary() -> None:
    stats = token_stats(torch.zeros(1, 3), Head(torch.ones(8, 3)), torch.tensor([5]))

    assert stats.logprobs.item() == pytest.approx(-math.log(8))
    assert stats.entropies.item() == pytest.approx(math.log(8))
    assert stats.sum_squares.item() == pytest.approx(1 / 8)
    assert stats.sum_squares_log.item() == pytest.approx(-math.log(8) / 8)


def test_logits_in_the_thousands_stay_finite() -> None:
    hidden, weight, targets = draw()
    stats = token_stats(1000 * hidden, Head(weight), targets)

    assert bool(stats.logprobs.isfinite().all())
    assert bool((stats.logprobs <= 0).all())
    assert bool((stats.entropies >= 0).all())


def test_only_log_probs_carry_a_gradient() -> None:
    hidden, weight, targets = draw()
    stats = token_stats(hidden.requires_grad_(), Head(weight), targets)

    assert stats.logprobs.requires_grad
    rest = (stats.entropies, stats.sum_squares, stats.sum_squares_log)
    assert [statistic.requires_grad for statistic in rest] == [False] * 3


def test_bfloat16_states_are_reduced_in_float32() -> None:
    hidden, weight, targets = (each.to(torch.bfloat16) if each.is_floating_point() else each for each in draw())
    stats = token_stats(hidden.requires_grad_(), Head(weight.requires_grad_()), targets)
    torch.autograd.backward(stats.logprobs.sum())
    exact = direct(hidden.detach().float(), Head(weight.detach().float()), targets)

    assert stats.logprobs.dtype == torch.float32
    assert torch.allclose(stats.logprobs, exact[0], atol=2e-6, rtol=1e-5)
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest number of elements that any operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.size = max(self.size, result.numel())
        return result


def test_no_tensor_is_ever_larger_than_one_tile_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_CPU_TILE_ROWS", 100)
    monkeypatch.setattr(room, "_CPU_TILE_BYTES", 4 * 100 * 200)
    hidden, weight, targets = draw(num_tokens=1000, vocabulary=500)
    hidden.requires_grad_()

    with LargestTensor() as largest:
        torch.autograd.backward(token_stats(hidden, Head(weight.requires_grad_()), targets).logprobs.sum())

    assert largest.size == 100 * 200  # all logits would be 1000 x 500


def test_tokens_without_a_gradient_leave_the_others_theirs() -> None:
    hidden, weight, targets = draw()
    hidden.requires_grad_()
    coefficients = torch.where(torch.arange(100) % 3 == 0, 0.5, 0.0)

    stats = token_stats(hidden, Head(weight), targets)
    gradient = torch.autograd.grad(stats.logprobs, hidden, coefficients)[0]
    exact = torch.autograd.grad(direct(hidden, Head(weight), targets)[0], hidden, coefficients)[0]

    assert bool((gradient[coefficients == 0] == 0).all())
    assert (gradient - exact).norm() / exact.norm() < 5e-6


@pytest.mark.parametrize(
    ("device", "num_tokens", "vocabulary", "tile"),
    [
        ("cpu", 8192, 151_936, (2048, 2048)),
        ("cpu", 512, 32_768, (512, 8192)),
        ("cpu", 512, 1_000, (512, 1_000)),
        ("cuda", 8192, 151_936, (110, 151_936)),
        ("cuda", 8192, 100, (1024, 100)),
        ("cuda", 8192, 10**7, (32, 10**7)),
    ],
)
def test_a_tile_takes_16_mb_on_a_cpu_and_whole_rows_of_64_mb_on_a_gpu(
    device: str, num_tokens: int, vocabulary: int, tile: tuple[int, int]
) -> None:
    tiles = room.Tiles.cut(num_tokens, vocabulary, torch.device(device))

    assert (tiles.rows[0].stop, tiles.words[0].stop) == tile
    assert (tiles.rows[-1].stop, tiles.words[-1].stop) == (num_tokens, vocabulary)
