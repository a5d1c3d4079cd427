"""Decodes the Llama family without its modules: fused weights, prompts held once, nothing repeated per head.

Knows the family's arithmetic, which it leaves as it is: only the order of float additions differs from the model's
own forward. It knows no sampling. `n` rows being drawn, `N` tokens of any rows, `h` query heads, `k` key-value
heads, `g` = h / k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from stapo_core.rollout.decoding import Decoder, ModelDecoder
from stapo_core.rollout.fused_weights import FusedWeights, can_fuse
from stapo_core.rollout.shared_prefix import PromptAttention, RowAttention

_Attend: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Layer, queries [N, k, g, d] already scaled, keys and values [N, k, d] -> what was read, N rows."""


def open_decoders(model: PreTrainedModel) -> Callable[[], Decoder]:
    """Makes decoders for the weights as they are now: call it again after an update."""
    if not can_fuse(model):
        return lambda: ModelDecoder(model)
    weights = FusedWeights(model)
    return lambda: FusedDecoder(weights)


class FusedDecoder:
    """A Decoder on fused weights that holds each prompt's keys once. Prompts are padded on the left."""

    pads = True

    def __init__(self, weights: FusedWeights) -> None:
        self._weights = weights
        self._device = weights.embedding.device
        self._width = 0  # of the padded prompts
        self._positions: Tensor = torch.empty(0, dtype=torch.int64)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "P V"]:
        """Reads all prompts at once; the head sees their last positions alone."""
        lengths = [len(prompt) for prompt in prompts]
        self._width = width = max(lengths)
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        first = torch.tensor([width - length for length in lengths], device=self._device)
        columns = torch.arange(width, device=self._device)
        self._prompts = PromptAttention(columns >= first[:, None])
        self._positions = torch.tensor(lengths, device=self._device)
        self._tables = self._weights.rotary(width)
        positions = (columns - first[:, None]).clamp_(min=0)
        hidden = self._run(
            torch.tensor(padded, device=self._device).flatten(), positions.flatten(), self._prompts.attend
        )
        return self._head(hidden.view(len(prompts), width, -1)[:, -1])

    def fan_out(self, origins: Int64[Tensor, " n"], room: int) -> None:
        """Allocates the responses' keys; the prompts' are neither copied nor read again."""
        self._rows = RowAttention(self._prompts, origins, room, dtype=self._weights.embedding.dtype)
        self._prompts.states.clear()
        self._positions = self._positions[origins]
        self._tables = self._weights.rotary(self._width + room)

    def step(self, token_ids: Int64[Tensor, " n"]) -> Float[Tensor, "n V"]:
        """One position through all layers."""
        hidden = self._run(token_ids, self._positions, self._rows.attend)
        self._positions = self._positions + 1
        return self._head(hidden)

    def keep(self, rows: Int64[Tensor, " m"]) -> None:
        """Copies only the rows that move; a prompt's keys stay, whoever is left to read them."""
        self._positions = self._positions[rows]
        self._rows.keep(rows)

    def _run(self, token_ids: Int64[Tensor, " N"], positions: Int64[Tensor, " N"], attend: _Attend) -> Tensor:
        """Hidden states [N, D] of N tokens, whatever they belong to: only `attend` knows."""
        weights = self._weights
        h, k = weights.num_heads, weights.num_kv_heads
        cos, sin = (table[positions] for table in self._tables)
        hidden = functional.embedding(token_ids, weights.embedding)
        for place, layer in enumerate(weights.layers):
            qkv = layer.qkv(self._norm(hidden, layer.input_norm)).view(len(hidden), h + 2 * k, -1)
            queries_and_keys, values = qkv[:, : h + k], qkv[:, h + k :]
            if layer.head_norm is not None:
                queries_and_keys = self._norm(queries_and_keys).mul_(layer.head_norm)
            turned = _rotate(queries_and_keys, cos, sin)
            # Query heads that share a key-value head stand beside each other: keys are never repeated for them.
            queries = turned[:, :h].mul_(weights.scale).reshape(len(hidden), k, h // k, -1)
            hidden += layer.out(attend(place, queries, turned[:, h:], values).flatten(1))
            gate, up = layer.gate_up(self._norm(hidden, layer.middle_norm)).chunk(2, dim=-1)
            hidden += layer.down(functional.silu(gate).mul_(up))
        return hidden

    def _head(self, hidden: Float[Tensor, "n D"]) -> Float[Tensor, "n V"]:
        return self._weights.head(self._norm(hidden, self._weights.final_norm))

    def _norm(self, states: Tensor, weight: Tensor | None = None) -> Tensor:
        return functional.rms_norm(states, states.shape[-1:], weight, self._weights.eps)


def _rotate(states: Float[Tensor, "n h d"], cos: Tensor, sin: Tensor) -> Float[Tensor, "n h d"]:
    """Turns the pairs (i, i + d / 2) by their angles."""
    first, second = states.chunk(2, dim=-1)
    turned = torch.empty_like(states)
    turned_first, turned_second = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=turned_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned_second).addcmul_(first, sin)
    return turned
