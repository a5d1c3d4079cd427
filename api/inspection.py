"""Recorded tokens as the wire shows them: single responses, silenced tokens in context, masks compared.

Reads through `api.store.recordings`; decides nothing about who may read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from api import simulation
from api.errors import Unprocessable
from api.schemas import (
    Funnel,
    MaskedTokens,
    MaskFigures,
    MaskSimulation,
    MinibatchThresholds,
    RolloutDetail,
    RolloutObject,
    SimulatedThresholds,
    TokenCount,
    TokenInContext,
    TokenObject,
    TokenSet,
)
from api.simulation import Scope, Simulated, Thresholds
from api.store.recordings import Columns, finite, read_columns, read_compact, read_slice, spans
from api.store.tables import Job, Rollout
from stapo_core.config import StapoConfig, TrainConfig

CONTEXT_TOKENS = 12
MOST_FREQUENT = 20
Array = np.ndarray[Any, Any]
MaskedSort = Literal["-grad_norm", "p", "entropy", "-advantage"]
_SHOWN = ("position", "token_id", "token", "p", "entropy", "advantage", "grad_norm")


def rollout_detail(path: Path, row: Rollout) -> RolloutDetail:
    """A response with every token."""
    tokens = read_slice(path, row.first_token, row.length).to_pylist()
    return RolloutDetail(
        **RolloutObject.of(row).model_dump(),
        prompt_text=tokens[0]["prompt"],
        response_text=tokens[0]["response"],
        is_complete=all(token["p"] is not None for token in tokens),
        tokens=[_token(token) for token in tokens],
    )


def masked_tokens(path: Path, step: int, ids: dict[int, str], *, sort: MaskedSort, limit: int) -> MaskedTokens:
    """The step's silenced tokens, ranked."""
    columns = read_columns(path, (*_SHOWN, "masked"))
    places = np.flatnonzero(columns["masked"])
    keys = columns[sort.removeprefix("-")][places]
    ranked = places[np.argsort(-keys if sort.startswith("-") else keys, kind="stable")]
    counts = Counter(zip(columns["token_id"][places].tolist(), columns["token"][places].tolist(), strict=True))
    return MaskedTokens(
        step=step,
        num_masked=len(places),
        num_tokens=len(columns["masked"]),
        data=_in_context(columns, ranked[:limit], ids),
        most_frequent=[
            TokenCount(token_id=token_id, token=token, count=count)
            for (token_id, token), count in counts.most_common(MOST_FREQUENT)
        ],
        has_more=len(places) > limit,
    )


def mask_simulation(
    path: Path, job: Job, step: int, ids: dict[int, str], thresholds: Thresholds, *, limit: int
) -> MaskSimulation:
    """The run's own mask of a step beside that of other thresholds. Raises Unprocessable beyond a compact record."""
    config = train_config(job)
    compact, own = read_compact(path), own_thresholds(job)
    if compact is not None and np.float32(thresholds.tau_p or 0.0) > np.float32(compact.kept_below):
        raise Unprocessable(
            f"Step {step} keeps the figures of tokens with p below {compact.kept_below:g} only; ask for a tau_p up to "
            f"{compact.kept_below:g}, or for a step that is a multiple of {config.record_rollouts_every} "
            "(config.record_rollouts_every), where every token has them.",
            code="step_recorded_compactly",
            param="tau_p",
        )
    columns = read_columns(path, (*simulation.COLUMNS, "token_id", "token"))
    simulated = simulation.simulate(
        columns,
        thresholds,
        num_minibatches=config.batch.num_minibatches,
        group_size=config.batch.group_size,
        compact=compact,
        own=own,
    )
    note = _inexact(columns, config, thresholds, own=own) or _undecided(simulated)
    masked = columns["masked"]
    grad_squares = _squares(columns).sum() if compact is None else compact.grad_squares
    return MaskSimulation(
        fine_tuning_job_id=job.id,
        step=step,
        thresholds=SimulatedThresholds(**vars(thresholds)),
        minibatches=[MinibatchThresholds(**vars(each)) for each in simulated.minibatches],
        actual=_figures(columns, masked, grad_squares),
        simulated=_figures(columns, simulated.is_masked, grad_squares),
        funnel=_funnel(simulated),
        entering=_token_set(columns, simulated.is_masked & ~masked, ids, limit),
        leaving=_token_set(columns, masked & ~simulated.is_masked, ids, limit),
        is_exact=note is None,
        note=note,
    )


def own_thresholds(job: Job) -> Thresholds:
    """The thresholds that the job itself masks by; the paper's where its algorithm masks nothing."""
    algorithm = train_config(job).algorithm
    own = algorithm if isinstance(algorithm, StapoConfig) else StapoConfig()
    return Thresholds(tau_p=None, entropy_quantile=own.quantile, entropy_scope=own.entropy_scope)


def choose_thresholds(
    job: Job, *, tau_p: float | None, entropy_quantile: float | None, entropy_scope: Scope | None
) -> Thresholds:
    """What was asked for; what was not stays as the job has it, or as the paper has it for another scope."""
    own = own_thresholds(job)
    scope = entropy_scope or own.entropy_scope
    usual = own.entropy_quantile if scope == own.entropy_scope else StapoConfig(entropy_scope=scope).quantile
    return Thresholds(tau_p=tau_p, entropy_quantile=entropy_quantile or usual, entropy_scope=scope)


def train_config(job: Job) -> TrainConfig:
    """The job's resolved training config."""
    return TrainConfig.model_validate(job.method["reinforcement"]["config"])


def _inexact(columns: Columns, config: TrainConfig, thresholds: Thresholds, *, own: Thresholds) -> str | None:
    if getattr(config.algorithm, "entropy_window", 1) > 1:
        return "The run takes its quantile over several mini-batches (entropy_window); here it is taken over each one."
    if thresholds.entropy_scope == "all_tokens" and not bool(columns["scored"].all()):
        return "Groups without an advantage were not scored in this run: their entropies are the sampler's, if any."
    if thresholds.tau_p is not None and bool((columns["tau_p"] == np.float32(thresholds.tau_p)).all()):
        thresholds = replace(thresholds, tau_p=None)  # it names what each mini-batch had
    if thresholds != own and config.batch.num_minibatches * config.batch.num_passes > 1:
        return "After the step's first update a run with these thresholds would have had other weights."
    return None


def _undecided(simulated: Simulated) -> str | None:
    """Why the mask is not certain at a compact step: tau_h is known within a bound, and tokens lie in its reach."""
    num_tokens = sum(each.undecided for each in simulated.minibatches)
    if num_tokens == 0:
        return None
    error = max(each.error for each in simulated.minibatches)
    tokens = "1 token lies" if num_tokens == 1 else f"{num_tokens} tokens lie"
    return (
        f"This step keeps its entropies as counts, so tau_h is known within {error:.2g} nats; {tokens} that near to "
        "it and may fall on the other side."
    )


def _token(token: dict[str, Any]) -> TokenObject:
    values = {name: finite(value) if isinstance(value, float) else value for name, value in token.items()}
    fields = {name: values[name] for name in TokenObject.model_fields if name in values}
    return TokenObject(id=token["token_id"], text=token["token"], **fields)


def _in_context(columns: Columns, places: Array, ids: dict[int, str]) -> list[TokenInContext]:
    starts, stops = spans(columns["position"])
    found = []
    for place in places.tolist():
        response = int(np.searchsorted(starts, place, side="right")) - 1
        start, stop = max(starts[response], place - CONTEXT_TOKENS), min(stops[response], place + 1 + CONTEXT_TOKENS)
        found.append(
            TokenInContext(
                rollout_id=ids[response],
                position=int(columns["position"][place]),
                token_id=int(columns["token_id"][place]),
                token=str(columns["token"][place]),
                before="".join(columns["token"][start:place]),
                after="".join(columns["token"][place + 1 : stop]),
                p=float(columns["p"][place]),
                entropy=finite(float(columns["entropy"][place])),
                advantage=float(columns["advantage"][place]),
                grad_norm=finite(float(columns["grad_norm"][place])),
            )
        )
    return found


def _token_set(columns: Columns, chosen: Array, ids: dict[int, str], limit: int) -> TokenSet:
    places = np.flatnonzero(chosen)
    ranked = places[np.argsort(-columns["grad_norm"][places], kind="stable")]
    return TokenSet(count=len(places), data=_in_context(columns, ranked[:limit], ids))


def _squares(columns: Columns) -> Array:
    return np.asarray(np.nan_to_num(columns["grad_norm"].astype(np.float64)) ** 2)


def _figures(columns: Columns, masked: Array, grad_squares: float) -> MaskFigures:
    squares = _squares(columns)
    responses = np.cumsum(columns["position"] == 0)
    return MaskFigures(
        num_masked=int(masked.sum()),
        ppm=1e6 * float(masked.sum()) / len(masked),
        responses_touched=len(np.unique(responses[masked])),
        grad_share=float(squares[masked].sum() / grad_squares) if grad_squares else 0.0,
    )


def _funnel(simulated: Simulated) -> Funnel:
    return Funnel(
        tokens=len(simulated.is_masked),
        positive_advantage=int(simulated.is_positive.sum()),
        low_p=int(simulated.is_candidate.sum()),
        low_p_low_h=int(simulated.is_masked.sum()),
    )
