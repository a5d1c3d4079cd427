"""A product by oneDNN is the product, in both directions, and a layer that multiplies by it is still the layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stapo_core.products import Linear, adopt, multiply


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_product_of_transposed_views_is_the_product(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(30, 50, dtype=dtype), torch.randn(20, 30, dtype=dtype)

    product = multiply(left.T, right.T)

    assert product.dtype == dtype
    assert torch.allclose(
        product.double(), left.double().T @ right.double().T, atol=1e-5 if dtype != torch.bfloat16 else 0.1
    )


def test_a_product_is_the_same_bit_for_bit_every_time() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(4000, 64), torch.randn(4000, 96)

    assert torch.equal(multiply(left.T, right), multiply(left.T, right))


@pytest.mark.parametrize("shape", [(7, 24), (3, 5, 24), (1, 24), (0, 24)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_an_adopted_layer_gives_the_values_and_gradients_of_the_plain_one(
    shape: tuple[int, ...], has_bias: bool
) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=has_bias)
    adopted = nn.Sequential(nn.Linear(24, 40, bias=has_bias))
    adopted[0].load_state_dict(plain.state_dict())
    adopt(adopted)
    inputs = torch.randn(shape, requires_grad=True)
    wanted = (inputs, *plain.parameters())
    exact = torch.autograd.grad(plain(inputs).sin().sum(), wanted)
    found = torch.autograd.grad(adopted(inputs).sin().sum(), (inputs, *adopted.parameters()))

    assert type(adopted[0]) is Linear
    for ours, theirs in zip(found, exact, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_adopting_leaves_parameters_names_and_other_kinds_of_layers_alone() -> None:
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(2, 3), Special(3, 4), nn.LayerNorm(4))
    before = dict(model.named_parameters())
    adopt(model)

    assert [type(module) for module in model] == [Linear, Special, nn.LayerNorm]
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_under_autocast_a_layer_multiplies_in_bfloat16() -> None:
    layer = nn.Sequential(nn.Linear(4, 4))
    adopt(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.ones(2, 4)).dtype == torch.bfloat16
