"""Attention for many responses to few prompts: a prompt's keys are held and read once, however many responses it has.

Knows queries, keys and values; it knows no model. `P` prompts, `L` positions of the longest prompt, `n` rows
(responses being drawn), `W` the most rows of one prompt, `t` response positions so far, `k` key-value heads, `g`
query heads to each of them, `h` = k g. Queries come scaled, and grouped by key-value head.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

_FIRST_ROOM = 64  # positions; twice as many whenever they are full


class PromptAttention:
    """Attention within prompts that are padded on the left; keeps the keys and values of every layer."""

    def __init__(self, is_token: Bool[Tensor, "P L"]) -> None:
        self._is_token = is_token
        self.states: list[tuple[Float[Tensor, "P k L d"], Float[Tensor, "P k L d"]]] = []
        self._mask: Bool[Tensor, "P 1 L L"] | None = None
        if not bool(is_token.all()):
            earlier = torch.ones(is_token.shape[1:] * 2, dtype=torch.bool, device=is_token.device).tril()
            itself = torch.eye(is_token.shape[1], dtype=torch.bool, device=is_token.device)  # no row may see nothing
            self._mask = ((earlier & is_token[:, None]) | itself)[:, None]

    def attend(
        self,
        _: int,
        queries: Float[Tensor, "P*L k g d"],
        keys: Float[Tensor, "P*L k d"],
        values: Float[Tensor, "P*L k d"],
    ) -> Float[Tensor, "P*L h d"]:
        """One layer; layers come in their order."""
        shape = self._is_token.shape
        q, k, v = (states.reshape(*shape, -1, states.shape[-1]).transpose(1, 2) for states in (queries, keys, values))
        self.states.append((k.contiguous(), v.contiguous()))
        attended = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=self._mask, is_causal=self._mask is None, scale=1.0, enable_gqa=True
        )
        return attended.transpose(1, 2).flatten(0, 1)

    def bias(self, dtype: torch.dtype) -> Float[Tensor, "P L"] | None:
        """What is added to scores of padding, or None where there is none."""
        if self._mask is None:
            return None
        bias = torch.zeros(self._is_token.shape, dtype=dtype, device=self._is_token.device)
        return bias.masked_fill_(~self._is_token, -torch.inf)


class RowAttention:
    """Attention of one new position of every row over its prompt and over its own tokens."""

    def __init__(
        self, prompts: PromptAttention, origins: Int64[Tensor, " n"], room: int, *, dtype: torch.dtype
    ) -> None:
        """Row i goes on from prompt `origins[i]`; at most `room` positions follow."""
        num_prompts = len(prompts.states[0][0])
        self._sharing = _Sharing(origins, num_prompts, prompts.bias(dtype))
        self._layers = [_LayerKv(keys, values, len(origins), room) for keys, values in prompts.states]

    def attend(
        self,
        place: int,
        queries: Float[Tensor, "n k g d"],
        keys: Float[Tensor, "n k d"],
        values: Float[Tensor, "n k d"],
    ) -> Float[Tensor, "n k g d"]:
        """Appends one position to layer `place` and reads all that came before it."""
        return self._layers[place].attend(queries, keys, values, self._sharing)

    def keep(self, rows: Int64[Tensor, " m"]) -> None:
        """Row i becomes what row `rows[i]` was; only rows that move are copied, and prompts stay."""
        self._sharing.keep(rows)
        targets = torch.nonzero(rows != torch.arange(len(rows), device=rows.device)).squeeze(-1)
        if len(targets):
            for layer in self._layers:
                layer.move(rows[targets], targets)


class _Sharing:
    """Which prompt each row goes on from, as places in a table of P x W."""

    def __init__(self, origins: Int64[Tensor, " n"], num_prompts: int, bias: Float[Tensor, "P L"] | None) -> None:
        counts = torch.bincount(origins, minlength=num_prompts)
        order = torch.argsort(origins, stable=True)
        starts = counts.cumsum(0) - counts
        ranks = torch.empty_like(origins)
        ranks[order] = torch.arange(len(origins), device=origins.device) - starts[origins[order]]
        self._num_prompts, self._width = num_prompts, int(counts.max())
        self._places = origins * self._width + ranks
        self._is_whole = self._find_whole()
        self._bias = bias

    def keep(self, rows: Int64[Tensor, " m"]) -> None:
        self._places = self._places[rows]
        self._is_whole = self._find_whole()

    def to_prompts(self, states: Float[Tensor, "n k g x"]) -> Float[Tensor, "P*k W*g x"]:
        """Rows gathered under their prompts; a place without a row holds zeros."""
        _, k, g, width = states.shape
        table = states
        if not self._is_whole:
            table = states.new_zeros(self._num_prompts * self._width, k, g, width)
            table[self._places] = states
        by_prompt = table.view(self._num_prompts, self._width, k, g, width).transpose(1, 2)
        return by_prompt.reshape(self._num_prompts * k, self._width * g, width)

    def to_rows(self, states: Float[Tensor, "P*k W*g x"], num_kv_heads: int) -> Float[Tensor, "n k g x"]:
        """The way back."""
        by_prompt = states.view(self._num_prompts, num_kv_heads, self._width, -1, states.shape[-1]).transpose(1, 2)
        table = by_prompt.flatten(0, 1)
        return table if self._is_whole else table[self._places]

    def add_bias(self, scores: Float[Tensor, "P*k W*g L"]) -> None:
        """Rules the padding out, in place."""
        if self._bias is not None:
            scores.view(self._num_prompts, -1, scores.shape[-1]).add_(self._bias[:, None])

    def _find_whole(self) -> bool:
        everywhere = torch.arange(self._num_prompts * self._width, device=self._places.device)
        return torch.equal(self._places, everywhere)


class _LayerKv:
    """One layer's keys and values: the prompts' as they were read, the responses' in a block that grows with them."""

    def __init__(
        self, keys: Float[Tensor, "P k L d"], values: Float[Tensor, "P k L d"], num_rows: int, room: int
    ) -> None:
        _, num_kv_heads, _, width = keys.shape
        self._prompt_keys, self._prompt_values = (states.flatten(0, 1) for states in (keys, values))
        self._room = room
        shape = (num_rows, num_kv_heads, min(room, _FIRST_ROOM), width)
        self._keys, self._values = (keys.new_empty(shape) for _ in range(2))
        self._length = 0

    def move(self, sources: Int64[Tensor, " c"], targets: Int64[Tensor, " c"]) -> None:
        """Copies rows over rows; how many are left shows in the next queries."""
        for states in (self._keys, self._values):
            states[targets, :, : self._length] = states[sources, :, : self._length]

    def attend(
        self,
        queries: Float[Tensor, "n k g d"],
        key: Float[Tensor, "n k d"],
        value: Float[Tensor, "n k d"],
        sharing: _Sharing,
    ) -> Float[Tensor, "n k g d"]:
        num_rows, k, g, _ = queries.shape
        if self._length == self._keys.shape[2]:
            more = min(self._room, 2 * self._length) - self._length
            self._keys, self._values = (
                functional.pad(states[:num_rows], (0, 0, 0, more)) for states in (self._keys, self._values)
            )
        self._keys[:num_rows, :, self._length] = key
        self._values[:num_rows, :, self._length] = value
        self._length += 1
        keys, values = (
            states[:num_rows].flatten(0, 1)[:, : self._length] for states in (self._keys, self._values)
        )  # [n*k, t, d], views
        prompt_scores = torch.bmm(sharing.to_prompts(queries), self._prompt_keys.transpose(1, 2))
        sharing.add_bias(prompt_scores)
        own_scores = torch.bmm(queries.flatten(0, 1), keys.transpose(1, 2)).view(num_rows, k, g, self._length)
        scores = torch.cat([sharing.to_rows(prompt_scores, k), own_scores], dim=-1)
        p = scores.softmax(dim=-1, dtype=torch.float32).to(scores.dtype)
        prompt_p, own_p = p[..., : -self._length], p[..., -self._length :]
        own = torch.bmm(own_p.flatten(0, 1), values).view_as(queries)
        return own.add_(sharing.to_rows(torch.bmm(sharing.to_prompts(prompt_p), self._prompt_values), k))
