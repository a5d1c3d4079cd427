"""Job states and the one table of allowed moves. Pure: no database, no clock."""

from __future__ import annotations

from enum import StrEnum

from api.errors import Conflict


class JobState(StrEnum):
    """Where a job stands."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RECOVERING = "recovering"
    EXPORTING = "exporting"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


S = JobState

MOVES: dict[JobState, frozenset[JobState]] = {
    S.VALIDATING_FILES: frozenset({S.QUEUED, S.FAILED, S.CANCELLED}),
    S.QUEUED: frozenset({S.STARTING, S.PAUSED, S.CANCELLED}),
    S.STARTING: frozenset({S.RUNNING, S.RECOVERING, S.PAUSING, S.PAUSED, S.CANCELLING, S.FAILED}),
    S.RUNNING: frozenset({S.EXPORTING, S.RECOVERING, S.PAUSING, S.PAUSED, S.CANCELLING, S.FAILED}),
    S.RECOVERING: frozenset({S.STARTING, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.PAUSING: frozenset({S.PAUSED, S.EXPORTING, S.RECOVERING, S.CANCELLING, S.FAILED}),
    S.PAUSED: frozenset({S.QUEUED, S.CANCELLED}),
    S.EXPORTING: frozenset({S.SUCCEEDED, S.RECOVERING, S.PAUSED, S.CANCELLING, S.FAILED}),
    S.CANCELLING: frozenset({S.CANCELLED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}

TERMINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
CLAIMABLE = frozenset({S.QUEUED, S.RECOVERING})
LEASED = frozenset({S.STARTING, S.RUNNING, S.PAUSING, S.EXPORTING, S.CANCELLING})
"""States in which a worker holds the job; a lease that runs out here means the worker is gone."""

ACTIONS: dict[str, tuple[JobState, JobState]] = {
    "cancel": (S.CANCELLING, S.CANCELLED),
    "pause": (S.PAUSING, S.PAUSED),
    "resume": (S.QUEUED, S.QUEUED),
}
"""What a caller may ask of a job, and where that takes one that a worker holds and one that none holds."""

# The words of the dialect's `status`; the finer states fold into them.
STATUS: dict[JobState, str] = {
    S.VALIDATING_FILES: "validating_files",
    S.QUEUED: "queued",
    S.STARTING: "queued",
    S.RUNNING: "running",
    S.PAUSING: "running",
    S.PAUSED: "paused",
    S.RECOVERING: "running",
    S.EXPORTING: "running",
    S.CANCELLING: "running",
    S.SUCCEEDED: "succeeded",
    S.FAILED: "failed",
    S.CANCELLED: "cancelled",
}


def find_target(current: JobState, action: str) -> JobState:
    """Where an action takes a job. Raises Conflict naming the state and the actions that it allows."""
    targets = {each: held if current in LEASED else free for each, (held, free) in ACTIONS.items()}
    if targets[action] not in MOVES[current]:
        allowed = [each for each, target in targets.items() if target in MOVES[current]]
        state = f"has ended ({current})" if current in TERMINAL else f"is {current}"
        raise Conflict(
            f"The job {state} and takes no {action}; what it takes: {', '.join(allowed) or 'nothing more'}.",
            code="illegal_state",
        )
    return targets[action]


def check_move(current: JobState, target: JobState) -> None:
    """Raises Conflict, naming the state and what it allows, unless `current` may become `target`."""
    if target not in MOVES[current]:
        allowed = ", ".join(sorted(MOVES[current])) or "nothing: it has ended"
        raise Conflict(
            f"The job is {current} and cannot become {target}; from here it may become: {allowed}.",
            code="illegal_state",
        )
