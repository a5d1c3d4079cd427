"""What flows through one step, and the legend of axes used in every signature of the trainer.

Axes: `B` prompts, `G` responses per prompt, `R` responses (B x G), `L` positions of one prompt, `T` tokens of one
response, `N` response tokens laid end to end, `C` tokens of one chunk, `D` hidden width, `V` vocabulary. Log-probs
and entropies are in nats, float32, at the sampling temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float32, Int64
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
