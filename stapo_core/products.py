"""Matrix products in float32 on a CPU through oneDNN, and linear layers that multiply by it in both directions.

Knows tensors alone. torch hands such products to MKL, which leaves the AVX-512 units of AMD processors idle: oneDNN
was measured at twice its rate there. Wherever oneDNN is not at hand or does not apply, torch's own product answers.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def multiply(left: Float[Tensor, "I J"], right: Float[Tensor, "J K"]) -> Float[Tensor, "I K"]:
    """`left @ right`, without a graph; either may be a transposed view."""
    if _applies(left, right):
        return _onednn(left, right.T, None)
    return torch.mm(left, right)


class Linear(nn.Linear):
    """A linear layer like its parent, number for number but for rounding."""

    def forward(self, input: Float[Tensor, "... J"]) -> Float[Tensor, "... K"]:  # noqa: A002  # the parent's name
        """`input @ weight.T + bias`."""
        if not _applies(input, self.weight) or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        if torch.is_grad_enabled():
            return _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]
        return _onednn(input, self.weight, self.bias)


def adopt(model: nn.Module) -> None:
    """Makes every plain linear layer of a model a `Linear`, in place: same parameters, same names."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _onednn(inputs, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        return (
            multiply(flat, weight).view_as(inputs) if needs_inputs else None,
            multiply(flat.T, inputs.reshape(-1, inputs.shape[-1])) if needs_weight else None,
            flat.sum(dim=0) if needs_bias else None,
        )


def _applies(left: Tensor, right: Tensor) -> bool:
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == right.device.type == "cpu"
        and left.numel() > 0
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _onednn(inputs: Float[Tensor, "... J"], weight: Float[Tensor, "K J"], bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return product
