"""Several processes that learn as one: each scores its share of a mini-batch, and all see the whole of it.

Knows torch.distributed alone. Ranks exchange the statistics of tokens, a few numbers each, and sum their gradients;
so every rank takes the same decision over the same table, and the number of ranks changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class Ranks(Protocol):
    """What the learner asks of its peers; every call but `share` is made by all ranks, in the same order."""

    @property
    def size(self) -> int:
        """How many they are."""

    def share(self, items: Sequence[T]) -> list[T]:
        """The items that are this rank's; each item is some rank's."""
        ...

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the ranks."""
        ...

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in order."""
        ...


class Alone:
    """One process: every share is the whole."""

    size = 1

    def share(self, items: Sequence[T]) -> list[T]:
        """All of them."""
        return list(items)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Leaves the tensors as they are."""

    def gather(self, value: T) -> list[T]:
        """Its own value."""
        return [value]


class Peers:
    """The ranks of a torch.distributed process group."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def share(self, items: Sequence[T]) -> list[T]:
        """Every `size`-th item: neighbours, which are of like length, go to different ranks."""
        return list(items[self.rank :: self.size])

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Sums by one message per dtype, so that many small tensors cost no more than a large one."""
        for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
            same = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            dist.all_reduce(flat, group=self._group)
            start = 0
            for tensor in same:
                tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
                start += tensor.numel()

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in order."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values
