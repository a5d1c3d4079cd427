"""What flows through one step, and the legend of axes used in every signature of the trainer.

Axes: `B` prompts, `G` responses per prompt, `R` responses (B x G), `L` positions of one prompt, `T` tokens of one
response, `N` response tokens laid end to end, `C` tokens of one chunk, `D` hidden width, `V` vocabulary. Log-probs
and entropies are in nats, float32, at the sampling temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Bool, Float32, Int64
from torch import Tensor

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of a data file, tokenized: `index` is its row, `item` its fields, which graders read."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    item: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Response:
    """One response as the sampler drew it; `token_ids` ends with the end-of-sequence token when `finish` is stop."""

    token_ids: Int64[Tensor, " T"]
    logprobs: Float32[Tensor, " T"]
    entropies: Float32[Tensor, " T"]
    text: str
    finish: Finish


@dataclass(frozen=True, slots=True)
class Group:
    """The G responses to one prompt, and their rewards once they are graded."""

    prompt: Prompt
    responses: tuple[Response, ...]
    rewards: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenStats:
    """What one pass over the vocabulary says of each token; only `logprobs` carries a gradient."""

    logprobs: Float32[Tensor, " N"]
    entropies: Float32[Tensor, " N"]
    sum_squares: Float32[Tensor, " N"]
    """Collision probability, the sum over the vocabulary of p^2."""
    sum_squares_log: Float32[Tensor, " N"]
    """The sum over the vocabulary of p^2 ln p, which the first-order change of entropy needs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some responses to one prompt that share its forward pass; `rows` are their places among the R responses."""

    prompt_ids: Int64[Tensor, " L"]
    responses: tuple[Int64[Tensor, " T"], ...]
    rows: tuple[int, ...]

    @property
    def num_padded_tokens(self) -> int:
        """Tokens that its forward pass costs: the prompt once, the responses padded to the longest."""
        return len(self.prompt_ids) + len(self.responses) * max(len(ids) for ids in self.responses)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The response tokens of a mini-batch, or of a part of it, laid end to end: all that an algorithm sees."""

    advantages: Float32[Tensor, " N"]
    logprobs: Float32[Tensor, " N"]
    """Of the current policy, without gradient."""
    old_logprobs: Float32[Tensor, " N"]
    """Of the policy that the step began with, by the trainer's own arithmetic."""
    sampler_logprobs: Float32[Tensor, " N"]
    """As the sampler saw them when it drew."""
    entropies: Float32[Tensor, " N"]
    rows: Int64[Tensor, " N"]
    """Place of each token's response in `lengths`."""
    lengths: Int64[Tensor, " R"]
    reference_logprobs: Float32[Tensor, " N"] | None = None
    """Of the base model, where the algorithm has a KL term."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """All that is known of each response token of a step once the learner is done: for diagnostics and the files.

    Tokens of groups without an advantage keep the sampler's log-probs and entropies where they were not scored.
    """

    tokens: Tokens
    stats: TokenStats
    weights: Float32[Tensor, " N"]
    slopes: Float32[Tensor, " N"]
    """d objective / d log p before selection, as the algorithm's whole surrogate has it."""
    clipped_low: Bool[Tensor, " N"]
    clipped_high: Bool[Tensor, " N"]
    is_scored: Bool[Tensor, " N"]
    """Forwarded by the trainer in this step."""
    has_old: Bool[Tensor, " N"]
    """Forwarded by the trainer before the step's first update too, so that `old_logprobs` is its own."""
    tau_p: Float32[Tensor, " N"]
    """Below it a token counts as rare; the paper's value where the algorithm has none."""
    tau_h: Float32[Tensor, " N"]
    """Below it a token counts as certain; what the paper would take where the algorithm has none, NaN for none."""
