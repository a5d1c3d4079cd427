"""Scores mini-batches: each rank its share, micro-batch by micro-batch, with a pause point between them.

Knows policies and shapes; it takes no decision and moves no weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float32
from torch import Tensor

from stapo_core.batch import TokenStats
from stapo_core.distributed import Alone, Ranks
from stapo_core.minibatch import Microbatch, MiniBatch
from stapo_core.policy import Policy
from stapo_core.rollout import Stopped

T = TypeVar("T")


class NotFinite(Exception):
    """A loss or gradient is not finite; the message names the micro-batch."""


class Scorer:
    """The policy's forward passes over a mini-batch, at one temperature and under one token budget.

    `may_stop` opens and closes the pause points: between micro-batches while nothing has changed.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        temperature: float,
        max_tokens: int,
        should_stop: Callable[[], bool] = lambda: False,
        ranks: Ranks | None = None,
    ) -> None:
        self.policy = policy
        self.ranks: Ranks = ranks or Alone()
        self.should_stop = should_stop
        self.may_stop = True
        self._temperature = temperature
        self._max_tokens = max_tokens

    def cut(self, batch: MiniBatch, rows: list[int]) -> list[Microbatch]:
        """This rank's micro-batches of some rows."""
        return self.ranks.share(self.cut_own(batch, rows))

    def cut_own(self, batch: MiniBatch, rows: list[int]) -> list[Microbatch]:
        """Micro-batches of rows that are this rank's already."""
        return batch.cut(rows, self._max_tokens)

    def forward(self, microbatch: Microbatch) -> TokenStats:
        """The policy's statistics of a micro-batch, with their graph where gradients are on."""
        return self.policy.score(microbatch, temperature=self._temperature)

    def score(self, batch: MiniBatch, microbatch: Microbatch, *, number: str) -> Float32[Tensor, " M"]:
        """Scores a micro-batch into the mini-batch; its log-probs with their graph. Raises NotFinite and Stopped."""
        if not microbatch:
            return batch.tokens.logprobs[:0]
        self._pause_point()
        stats = self.forward(microbatch)
        batch.write(batch.places(microbatch), stats)
        if not bool(stats.logprobs.isfinite().all()):
            raise NotFinite(f"the log-probs of {name(batch, microbatch, number)} are not finite")
        return stats.logprobs

    @torch.no_grad()
    def score_all(self, batch: MiniBatch, rows: list[int]) -> None:
        """Scores this rank's share of some rows into the mini-batch, without gradients."""
        for microbatch in self.cut(batch, rows):
            self._pause_point()
            batch.write(batch.places(microbatch), self.forward(microbatch))

    @torch.no_grad()
    def score_reference(self, batch: MiniBatch, rows: list[int], reference: Policy) -> None:
        """Gives the mini-batch the log-probs of a reference model; 0 where it has no row to score."""
        logprobs = torch.zeros_like(batch.tokens.logprobs)

        def fill() -> None:
            for microbatch in self.cut(batch, rows):
                self._pause_point()
                stats = reference.score(microbatch, temperature=self._temperature)
                logprobs[batch.places(microbatch)] = stats.logprobs

        self.together(fill)
        self.ranks.sum_([logprobs])
        batch.set_reference(logprobs)

    def together(self, work: Callable[[], T]) -> T:
        """Does this rank's part of a work; when any rank stops or fails in it, all of them do."""
        trouble: Exception | None = None
        try:
            result = work()
        except (Stopped, NotFinite) as error:
            trouble = error
        for found in self.ranks.gather(trouble):
            if found is not None:
                raise found
        return result

    def _pause_point(self) -> None:
        if self.may_stop and self.should_stop():
            raise Stopped


def name(batch: MiniBatch, microbatch: Microbatch, number: str) -> str:
    """A micro-batch in words: its number, and the training rows that its prompts come from."""
    owners = [group.prompt.index for group in batch.groups for _ in group.responses]
    prompts = sorted({owners[row] for piece in microbatch for row in piece.rows})
    return f"micro-batch {number} (training rows {', '.join(map(str, prompts))})"
