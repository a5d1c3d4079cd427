"""Keys and values of the tokens seen so far, preallocated and written in place.

Knows the cache interface of transformers. Rows may be fanned out (one prompt to many responses) and dropped.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class KvLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers carries no types
    """One layer: first the prompts' states as they come, then, fanned out, a block with room for the responses.

    Sliding windows are left to the attention mask, so every layer keeps all tokens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.num_rows = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Takes the first states as they are; there is nothing to allocate before the fan-out."""
        self.keys, self.values = key_states, value_states
        self.num_rows, self.length = key_states.shape[0], key_states.shape[2]
        self.is_initialized = True

    def update(
        self, key_states: Float[Tensor, "n h q d"], value_states: Float[Tensor, "n h q d"], *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends q positions to every row and gives back all that are filled, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            return self.keys, self.values
        start, self.length = self.length, self.length + key_states.shape[2]
        keys, values = self.keys[: self.num_rows], self.values[: self.num_rows]
        keys[:, :, start : self.length] = key_states
        values[:, :, start : self.length] = value_states
        return keys[:, :, : self.length], values[:, :, : self.length]

    def fan_out(self, origins: Int64[Tensor, " n"], room: int) -> None:
        """Row i becomes a copy of row `origins[i]`, with `room` more positions allocated."""
        self.keys = _widen(self.keys.index_select(0, origins), room)
        self.values = _widen(self.values.index_select(0, origins), room)
        self.num_rows = len(origins)

    def move(self, sources: Int64[Tensor, " k"], targets: Int64[Tensor, " k"], num_rows: int) -> None:
        """Copies rows `sources` over rows `targets` and keeps the first `num_rows`."""
        if len(sources):
            self.keys[targets, :, : self.length] = self.keys[sources, :, : self.length]
            self.values[targets, :, : self.length] = self.values[sources, :, : self.length]
        self.num_rows = num_rows

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Positions that the mask spans, and where it begins."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Positions filled so far."""
        return self.length

    def get_max_length(self) -> int:
        """There is no limit of its own."""
        return -1


class KvCache(Cache):  # type: ignore[misc]
    """The layers of one batch; layers come into being as the model first writes to them."""

    layers: list[KvLayer]

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=KvLayer)

    def fan_out(self, origins: Int64[Tensor, " n"], room: int) -> None:
        """See KvLayer.fan_out."""
        for layer in self.layers:
            layer.fan_out(origins, room)

    def move(self, sources: Int64[Tensor, " k"], targets: Int64[Tensor, " k"], num_rows: int) -> None:
        """See KvLayer.move."""
        for layer in self.layers:
            layer.move(sources, targets, num_rows)


def _widen(states: Float[Tensor, "n h l d"], room: int) -> Float[Tensor, "n h l+room d"]:
    rows, heads, length, width = states.shape
    wide = torch.empty(rows, heads, length + room, width, dtype=states.dtype, device=states.device)
    wide[:, :, :length] = states
    return wide
