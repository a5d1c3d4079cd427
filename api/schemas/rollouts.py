"""Recorded responses, token by token, and what a mask does to them, on the wire."""

from __future__ import annotations

from typing import Literal

from api.schemas.wire import Wire
from api.store.tables import Rollout
from stapo_core.config import Strict


class RolloutObject(Wire):
    """A recorded response."""

    id: str
    object: Literal["fine_tuning.job.rollout"] = "fine_tuning.job.rollout"
    fine_tuning_job_id: str
    step: int
    place: int
    """Its place among the responses of the step."""
    prompt_index: int
    """The row of the training file, from 0."""
    sample_index: int
    """Which of the responses to its prompt."""
    reward: float
    advantage: float
    length: int
    """Tokens of the response."""
    finish: str
    """`stop`, or `length` where it was cut."""
    num_candidates: int
    """Tokens with A > 0 and p < tau_p."""
    num_masked: int
    """Tokens that were silenced."""
    num_clipped: int
    """Tokens whose ratio the clip held."""
    min_p: float
    """The probability of its rarest token."""
    mean_entropy: float | None
    """Mean entropy of its tokens in nats."""
    prompt: str
    """The beginning of the prompt."""
    preview: str
    """The beginning of the response."""
    pinned: bool
    """Whether its step is kept when the oldest recorded steps make room for new ones."""

    @classmethod
    def of(cls, row: Rollout) -> RolloutObject:
        """The wire form of a row."""
        return cls(fine_tuning_job_id=row.job_id, **{name: getattr(row, name) for name in _ROW_FIELDS})


_ROW_FIELDS = [name for name in RolloutObject.model_fields if name not in ("object", "fine_tuning_job_id")]


class RolloutPatch(Strict):
    """What may be changed of a recorded response."""

    pinned: bool
    """Keeps its whole step from being dropped by size."""


class TokenObject(Wire):
    """One token and all that the method knew of it."""

    position: int
    id: int
    text: str
    p: float | None
    """Probability under the policy being trained; null, like the other figures, where the step did not keep it."""
    logprob: float | None
    """Its logarithm, by the trainer's arithmetic."""
    old_logprob: float | None
    """Under the policy that the step began with."""
    sampler_logprob: float | None
    """As the sampler saw it when it drew."""
    entropy: float | None
    """H in nats."""
    advantage: float
    ratio: float | None
    """exp(logprob - old_logprob)."""
    grad_norm: float | None
    """Norm of the surrogate's gradient at the token's logits."""
    weight: float
    """The weight in the loss; 0 is silenced."""
    clipped: bool
    masked: bool
    positive_advantage: bool
    """First condition of the mask: A > 0."""
    low_p: bool
    """Second condition: p < tau_p."""
    low_h: bool
    """Third condition: H < tau_h."""
    tau_p: float
    tau_h: float | None
    """The threshold of its mini-batch; null where there was none."""
    scored: bool
    """False where the group had no advantage: then the figures are the sampler's."""


class RolloutDetail(RolloutObject):
    """A recorded response with its whole text and every token."""

    prompt_text: str
    response_text: str
    is_complete: bool
    """Whether every token has its figures; between full records only responses with a silenced token do."""
    tokens: list[TokenObject]


class TokenInContext(Wire):
    """A token, where it stands, and the text around it."""

    rollout_id: str
    position: int
    token_id: int
    token: str
    before: str
    """The text of the tokens before it."""
    after: str
    """The text of the tokens behind it."""
    p: float
    entropy: float | None
    advantage: float
    grad_norm: float | None


class TokenCount(Wire):
    """How often one token of the vocabulary was silenced in the step."""

    token_id: int
    token: str
    count: int


class MaskedTokens(Wire):
    """The silenced tokens of a step, in the order asked for."""

    object: Literal["list"] = "list"
    step: int
    num_masked: int
    """All silenced tokens of the step, of which `data` holds the first."""
    num_tokens: int
    data: list[TokenInContext]
    most_frequent: list[TokenCount]
    """The tokens of the vocabulary that were silenced most often."""
    has_more: bool


class SimulatedThresholds(Wire):
    """The thresholds that were simulated."""

    tau_p: float | None
    """Null where each mini-batch kept its own."""
    entropy_quantile: float
    entropy_scope: Literal["candidates", "all_tokens"]


class MinibatchThresholds(Wire):
    """What the thresholds came to in one mini-batch."""

    tau_p: float
    tau_h: float | None
    num_population: int
    """Tokens over which the quantile was taken."""
    error: float
    """tau_h is known within this many nats; 0 where it is exact."""
    undecided: int
    """Candidates whose entropy lies within that reach of tau_h: they may fall on the other side."""


class MaskFigures(Wire):
    """What a mask silences."""

    num_masked: int
    ppm: float
    responses_touched: int
    grad_share: float
    """The share of the summed squared gradient norms that the silenced tokens carry."""


class Funnel(Wire):
    """How many tokens meet each further condition."""

    tokens: int
    positive_advantage: int
    low_p: int
    low_p_low_h: int


class TokenSet(Wire):
    """Some tokens; `data` holds the first of them, largest gradient first."""

    count: int
    data: list[TokenInContext]


class MaskSimulation(Wire):
    """What other thresholds would have silenced on the recorded rollouts of a step."""

    object: Literal["fine_tuning.job.mask_simulation"] = "fine_tuning.job.mask_simulation"
    fine_tuning_job_id: str
    step: int
    thresholds: SimulatedThresholds
    minibatches: list[MinibatchThresholds]
    actual: MaskFigures
    """The run's own mask."""
    simulated: MaskFigures
    funnel: Funnel
    """Under the simulated thresholds."""
    entering: TokenSet
    """Silenced here and not by the run."""
    leaving: TokenSet
    """Silenced by the run and not here."""
    is_exact: bool
    """Whether a run with these thresholds would have silenced exactly these tokens."""
    note: str | None
    """Why not, where it would not."""


class PlaneCell(Wire):
    """The tokens of one small square of the plane of probability and entropy."""

    p: float
    """Its middle on a logarithmic axis."""
    entropy: float
    """Its middle on a logarithmic axis, in nats."""
    count: int
    grad_norm: float
    """Mean over the square."""


class PlanePoint(Wire):
    """One token of the plane."""

    p: float
    entropy: float


class Plane(Wire):
    """The tokens of one sign of the advantage."""

    num_tokens: int
    cells: list[PlaneCell]
    """Those that hold tokens."""
    quadrants: dict[str, int]
    """Tokens below and above the thresholds of their own mini-batch: low_p_low_h, low_p_high_h, high_p_low_h, …"""
    masked: list[PlanePoint]
    """The first silenced tokens."""


class TokenQuadrants(Wire):
    """A recorded step's tokens by probability and entropy, on logarithmic axes."""

    object: Literal["fine_tuning.job.quadrants"] = "fine_tuning.job.quadrants"
    fine_tuning_job_id: str
    step: int
    num_tokens: int
    """Response tokens whose group had an advantage."""
    p_decades: tuple[float, float]
    """Powers of ten at which the axis of p begins and ends; what lies outside counts in the outermost cells."""
    entropy_decades: tuple[float, float]
    tau_p: list[float]
    tau_h: list[float]
    """The least and the greatest of the mini-batches; empty where there was none."""
    positive: Plane
    """Tokens with A > 0."""
    negative: Plane
    """Tokens with A < 0."""
