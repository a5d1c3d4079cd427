"""Runs a causal language model token by token: prompts once, then one position a step for many responses.

Knows models and caches; it knows no sampling. `P` counts prompts, `n` the responses that are still being drawn.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, get_layer_types_and_kwargs

from stapo_core.rollout.kv_cache import KvCache

_PLAIN_LAYERS = frozenset({"full_attention", "sliding_attention"})


class Decoder(Protocol):
    """One batch through a model: prefill once, fan out once, then step, dropping rows as they end."""

    pads: bool
    """Whether prompts of unequal length may share a batch."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "P V"]:
        """Reads the prompts and gives the logits of their first response tokens."""
        ...

    def fan_out(self, origins: Int64[Tensor, " n"], room: int) -> None:
        """Row i goes on from prompt `origins[i]`; at most `room` steps follow."""
        ...

    def step(self, token_ids: Int64[Tensor, " n"]) -> Float[Tensor, "n V"]:
        """Appends one token to every row and gives the logits of the next."""
        ...

    def keep(self, rows: Int64[Tensor, " m"]) -> None:
        """Row i becomes what row `rows[i]` was, `rows[i] >= i`; the rest is dropped."""
        ...


class ModelDecoder:
    """Any causal language model of transformers, through its own forward.

    Prompts are padded on the left and the padding is masked, so that all rows write to the same column. Models
    whose layers carry a state other than keys and values (linear attention, Mamba) see prompts of one length a
    batch and keep the cache that transformers gives them.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._accepts = frozenset(inspect.signature(model.forward).parameters)
        self.pads = has_plain_attention(model)
        # The state-space models call their cache by another name.
        self._cache_name = "cache_params" if "cache_params" in self._accepts else "past_key_values"
        self._cache: Any = KvCache() if self.pads else DynamicCache(config=model.config)
        self._mask: Tensor | None = None
        self._positions: Tensor = torch.empty(0, dtype=torch.int64)
        self._length = 0

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "P V"]:
        """Pads on the left; a batch of equal lengths needs no mask and takes the faster attention kernels."""
        lengths = [len(prompt) for prompt in prompts]
        self._length = max(lengths)
        padded = [[0] * (self._length - len(prompt)) + list(prompt) for prompt in prompts]
        first = torch.tensor([self._length - length for length in lengths], device=self._device)
        columns = torch.arange(self._length, device=self._device)
        if min(lengths) < self._length:
            self._mask = (columns >= first[:, None]).long()
        positions = (columns - first[:, None]).clamp_(min=0)
        self._positions = torch.tensor(lengths, device=self._device)
        return self._forward(torch.tensor(padded, device=self._device), positions)

    def fan_out(self, origins: Int64[Tensor, " n"], room: int) -> None:
        """Repeats keys, values, masks and positions; the prompts are not read again."""
        self._positions = self._positions[origins]
        if self._mask is not None:
            self._mask = nn.functional.pad(self._mask[origins], (0, room), value=1)
        if isinstance(self._cache, KvCache):
            self._cache.fan_out(origins, room)
        else:
            self._cache.reorder_cache(origins)

    def step(self, token_ids: Int64[Tensor, " n"]) -> Float[Tensor, "n V"]:
        """One forward of one position."""
        self._length += 1
        logits = self._forward(token_ids[:, None], self._positions[:, None])
        self._positions = self._positions + 1
        return logits

    def keep(self, rows: Int64[Tensor, " m"]) -> None:
        """Copies only the rows that move."""
        self._positions = self._positions[rows]
        if self._mask is not None:
            self._mask = self._mask[rows]
        if isinstance(self._cache, KvCache):
            targets = torch.nonzero(rows != torch.arange(len(rows), device=rows.device)).squeeze(-1)
            self._cache.move(rows[targets], targets, len(rows))
        else:
            self._cache.reorder_cache(rows)

    def _forward(self, token_ids: Int64[Tensor, "n q"], positions: Int64[Tensor, "n q"]) -> Float[Tensor, "n V"]:
        extra: dict[str, Any] = {"position_ids": positions, "logits_to_keep": 1}
        if self._mask is not None:
            extra["attention_mask"] = self._mask[:, : self._length]
        known = {name: value for name, value in extra.items() if name in self._accepts}
        output = self._model(input_ids=token_ids, use_cache=True, **{self._cache_name: self._cache}, **known)
        self._cache = output[self._cache_name]
        return output.logits[:, -1]  # type: ignore[no-any-return]


def has_plain_attention(model: PreTrainedModel) -> bool:
    """Whether every layer's whole state is its keys and values."""
    layer_types, _ = get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))
    return set(layer_types) <= _PLAIN_LAYERS
