"""Several processes that learn as one: each scores its share of a mini-batch, and all see the whole of it.

Knows torch.distributed alone. Ranks exchange the statistics of tokens, a few numbers each, and sum their gradients;
so every rank takes the same decision over the same table, and the number of ranks changes nothing but rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
_PATIENCE = timedelta(hours=2)  # ranks wait while one grades a whole step or saves a large model; usual are ten minutes


class Ranks(Protocol):
    """What the learner asks of its peers; every call but `share` is made by all ranks, in the same order."""

    @property
    def size(self) -> int:
        """How many they are."""

    @property
    def rank(self) -> int:
        """This one's number, from 0."""

    def share(self, items: Sequence[T]) -> list[T]:
        """The items that are this rank's; each item is some rank's."""
        ...

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the ranks."""
        ...

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in order."""
        ...

    def from_first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes; the others wait for it."""
        ...


class Alone:
    """One process: every share is the whole."""

    size = 1
    rank = 0

    def share(self, items: Sequence[T]) -> list[T]:
        """All of them."""
        return list(items)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Leaves the tensors as they are."""

    def gather(self, value: T) -> list[T]:
        """Its own value."""
        return [value]

    def from_first(self, make: Callable[[], T]) -> T:
        """What it makes."""
        return make()


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

    def from_first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes; the others wait for it."""
        values: list[Any] = self.gather(make() if self.rank == 0 else None)
        made: T = values[0]
        return made


def connect(rank: int, size: int) -> Ranks:
    """Meets the other processes that `torchrun` has started, where there are any: over NCCL on GPUs, else gloo."""
    if size == 1:
        return Alone()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=size, timeout=_PATIENCE)
    return Peers()


def disconnect(ranks: Ranks) -> None:
    """Leaves the others, once all have come to their end."""
    if ranks.size > 1:
        dist.barrier()
        dist.destroy_process_group()
