"""Several ranks draw one batch: each the responses to its share of the prompts, and all see the whole.

Knows the Sampler protocol and the ranks; it draws nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from stapo_core.batch import Group, Prompt
from stapo_core.distributed import Ranks
from stapo_core.rollout import Draw, Sampler, Stopped


class RankedSampler:
    """A sampler that asks this rank's own one for a share; every rank calls it alike.

    `num_together` neighbours share one engine: they ask it for the same, so the run stops before a draw or after it.
    """

    def __init__(
        self, own: Sampler, ranks: Ranks, *, num_together: int = 1, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._own = own
        self._ranks = ranks
        self._num_together = num_together
        self._should_stop = should_stop

    def sample(self, prompts: Sequence[Prompt], draw: Draw) -> list[Group]:
        """The groups of all ranks in the order of the prompts. Raises Stopped on all when it is raised on one.

        All places of a prompt that comes twice are one rank's, since a sampler counts on through them.
        """
        if self._num_together > 1 and any(self._ranks.gather(self._should_stop())):
            raise Stopped
        different = list(dict.fromkeys(prompt.index for prompt in prompts))
        num_engines = self._ranks.size // self._num_together
        mine = set(different[self._ranks.rank // self._num_together :: num_engines])
        places = [place for place, prompt in enumerate(prompts) if prompt.index in mine]
        drawn: dict[int, Group] | None
        try:
            drawn = dict(zip(places, self._own.sample([prompts[place] for place in places], draw), strict=True))
        except Stopped:
            drawn = None
        whole: dict[int, Group] = {}
        for share in self._ranks.gather(drawn):
            if share is None:
                raise Stopped
            whole |= share
        return [whole[place] for place in range(len(prompts))]

    def load(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Gives this rank's sampler the weights, which are the same on all ranks."""
        self._own.load(weights, version=version)

    def sleep(self) -> None:
        """Puts this rank's sampler to sleep."""
        self._own.sleep()

    def wake(self) -> None:
        """Wakes this rank's sampler."""
        self._own.wake()

    def close(self) -> None:
        """Closes this rank's sampler."""
        self._own.close()
