"""Recorded responses as the pages ask for them: through the service's client, and kept, since a recording stays.

An attempt that does a step again records it again: the attempt is part of what is kept.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import streamlit as st

from client.http import ApiError
from client.objects import JobObject, MaskedTokens, MaskSimulation, RolloutDetail, RolloutObject, TokenQuadrants
from dashboard import service

_PAGE = 100
_MAX_PAGES = 40
_CALLS_AT_ONCE = 4


@dataclass(frozen=True)
class Step:
    """One recorded step of a job, by the attempt that made it."""

    job_id: str
    attempt: int
    number: int


def step_of(job: JobObject, number: int) -> Step:
    """A step as the job's present attempt has it on record."""
    return Step(job["id"], int(job.get("attempt") or 0), number)


@st.cache_data(ttl="30m", max_entries=200, show_spinner=False)
def responses(step: Step) -> list[RolloutObject]:
    """The responses of a step in the order of its groups, the first few thousand. Raises ApiError, ApiUnreachable."""
    found: list[RolloutObject] = []
    after = None
    for _ in range(_MAX_PAGES):
        with service.api() as client:
            page = client.list_rollouts(step.job_id, step=step.number, sort="step", after=after, limit=_PAGE)
        found += page["data"]
        after = page["last_id"]
        if not page["has_more"]:
            break
    return found


@st.cache_data(ttl="30m", max_entries=500, show_spinner=False)
def response(step: Step, rollout_id: str) -> RolloutDetail:
    """One response with every token. Raises ApiError and ApiUnreachable."""
    with service.api() as client:
        return client.get_rollout(step.job_id, rollout_id)


@st.cache_data(ttl="30m", max_entries=200, show_spinner=False)
def silenced(step: Step) -> MaskedTokens:
    """The silenced tokens of a step, those that would have weighed most first. Raises ApiError and ApiUnreachable."""
    with service.api() as client:
        return client.list_masked_tokens(step.job_id, step=step.number, limit=_PAGE)


@st.cache_data(ttl="30m", max_entries=200, show_spinner=False)
def silencing_steps(newest: Step, most: int) -> list[Step]:
    """The newest steps up to `newest` that silenced a token, in their order. Raises ApiError and ApiUnreachable."""
    found: set[int] = set()
    after = None
    while len(found) < most:
        with service.api() as client:
            page = client.list_rollouts(newest.job_id, masked=True, sort="-step", after=after, limit=_PAGE)
        found |= {row["step"] for row in page["data"] if row["step"] <= newest.number}
        after = page["last_id"]
        if not page["has_more"]:
            break
    return [Step(newest.job_id, newest.attempt, number) for number in sorted(found, reverse=True)[:most][::-1]]


def silenced_in(steps: list[Step]) -> dict[int, MaskedTokens]:
    """The silenced tokens of several steps, by their numbers; a step that is not on record is left out."""
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        found = zip(steps, pool.map(_silenced_or_none, steps), strict=True)
        return {step.number: silenced for step, silenced in found if silenced is not None}


def _silenced_or_none(step: Step) -> MaskedTokens | None:
    try:
        return silenced(step)
    except ApiError as error:
        if error.status != 404:
            raise
        return None


@st.cache_data(ttl="30m", max_entries=500, show_spinner=False)
def simulated(
    step: Step, tau_p: float | None = None, quantile: float | None = None, scope: str | None = None
) -> MaskSimulation:
    """The mask of a step under other thresholds; None leaves the run's own. Raises ApiError and ApiUnreachable."""
    with service.api() as client:
        return client.simulate_mask(
            step.job_id, step=step.number, tau_p=tau_p, entropy_quantile=quantile, entropy_scope=scope, limit=20
        )


@st.cache_data(ttl="30m", max_entries=200, show_spinner=False)
def quadrants(step: Step) -> TokenQuadrants:
    """The tokens of a step by probability and entropy. Raises ApiError and ApiUnreachable."""
    with service.api() as client:
        return client.count_quadrants(step.job_id, step=step.number)
