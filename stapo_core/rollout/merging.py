"""Weights as a model without adapters names them, for an engine that knows none. Knows names and tensors alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

_BASE = ".base_layer."


def merge_adapters(weights: Mapping[str, Tensor], *, scale: float) -> Iterator[tuple[str, Tensor]]:
    """The items of a state_dict with low-rank adapters added in: W + scale B A, one layer in memory at a time.

    A model without adapters comes out as it went in, a tied head under both its names.
    """
    for name, tensor in weights.items():
        if ".lora_" in name:
            continue
        layer, is_adapted, kind = name.rpartition(_BASE)
        if not is_adapted:
            yield name, tensor
        elif kind == "weight":
            down, up = (weights[f"{layer}.lora_{half}.default.weight"] for half in "AB")
            yield f"{layer}.weight", tensor + scale * (up @ down)
        else:
            yield f"{layer}.{kind}", tensor
