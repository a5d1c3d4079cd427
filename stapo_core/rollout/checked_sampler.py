"""An engine with weights of its own, held to the learner's: after every update both must say the same of a few tokens.

Knows the Sampler protocol and the policy. An engine can keep a weight that it was sent without an error (a tied head,
a fused projection); what it then draws is another policy's, and the run would learn from it unawares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stapo_core.batch import Group, Piece, Prompt
from stapo_core.policy import Policy
from stapo_core.rollout import Draw, Mismatch, Sampler

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Mean difference of log-probs (nats) that is put down to arithmetic; ARCHITECTURE.md says how it was measured."""
_NUM_SAMPLES, _NUM_TOKENS = 4, 16
_SEED_APART = 2**100
"""Keeps the seeds of these draws apart from those of training, evaluation and extra rounds."""


class CheckedSampler:
    """The engine as it is, but for `load`, which ends in the comparison: a short generation and one forward pass."""

    def __init__(self, own: Sampler, policy: Policy, *, prompt: Prompt, temperature: float) -> None:
        self._own = own
        self._policy = policy
        self._prompt = prompt
        self._temperature = temperature

    def sample(self, prompts: Sequence[Prompt], draw: Draw) -> list[Group]:
        """What the engine draws."""
        return self._own.sample(prompts, draw)

    def load(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Hands the weights on and compares. Raises Mismatch."""
        self._own.load(weights, version=version)
        gaps, tolerance = self.gaps(version), TOLERANCES[self._policy.dtype]
        mean, largest = gaps.mean().item(), gaps.max().item()
        if not mean <= tolerance:  # NaN is no agreement either
            raise Mismatch(
                f"log-probs of engine and learner differ by {mean:.3g} nats on average (at most {largest:.3g}) over "
                f"{len(gaps)} tokens after step {version}, and {tolerance:g} is tolerated: the engine holds other "
                "weights or computes otherwise; set train.sampling.engine to transformers to go on"
            )

    def gaps(self, version: int) -> Tensor:
        """|log p of the engine - log p of the learner| of some tokens that the engine has just drawn, end to end."""
        draw = Draw(_SEED_APART, version, _NUM_SAMPLES, self._temperature, max_tokens=_NUM_TOKENS)
        (group,) = self._own.sample([self._prompt], draw)
        responses = tuple(response.token_ids for response in group.responses)
        piece = Piece(torch.tensor(self._prompt.token_ids), responses, rows=tuple(range(len(responses))))
        with torch.no_grad():
            own = self._policy.score([piece], temperature=self._temperature).logprobs.cpu()
        return (torch.cat([response.logprobs for response in group.responses]) - own).abs()

    def sleep(self) -> None:
        """Puts the engine to sleep."""
        self._own.sleep()

    def wake(self) -> None:
        """Wakes the engine."""
        self._own.wake()

    def close(self) -> None:
        """Closes the engine."""
        self._own.close()
