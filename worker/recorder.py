"""The trainer's events become rows. The spool's offset moves in the same transaction: each counts once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from api.errors import Unprocessable
from api.lifecycle import JobState
from api.store import artifacts, leases, metrics, recordings, rollouts
from api.store.database import Database, Session
from api.store.events import add_event, move
from api.store.tables import Job
from stapo_core import events
from stapo_core.failpoints import failpoint
from stapo_core.spool import count_whole_bytes, is_storage_full

BATCH_LINES = 500
CHUNK = 2**20


@dataclass(frozen=True)
class Attempt:
    """One claim of a job: what its writes name, and where its files lie."""

    job_id: str
    fence: int
    run_dir: Path
    artifacts_dir: Path
    keep_checkpoints: int
    lease_s: float = 60.0
    max_rollout_bytes: int = 2**34


@dataclass(frozen=True)
class RolloutsIndexed:
    """The responses of a step whose tokens have been published."""

    step: int
    rows: list[dict[str, Any]]


class Recorder:
    """Ships the spool of one attempt, in order."""

    def __init__(self, database: Database, attempt: Attempt) -> None:
        self._database = database
        self._attempt = attempt
        self.run_dir = attempt.run_dir
        self.failure: events.Failed | None = None
        """Why the trainer gave up, once it has said so."""
        self.halt: events.Halted | None = None
        """Why the trainer cannot go on before somebody acts, once it has said so."""
        self.keep_alive: Callable[[], object] = lambda: None
        """Called while files are published, which may take longer than a lease: renews it, and raises Fenced."""

    def rewind(self) -> None:
        """Before the trainer begins: goes back where a crash has left the disk with less than was shipped."""
        whole = count_whole_bytes(self._attempt.run_dir / "events.jsonl")
        with self._database.transaction() as session:
            job = leases.hold(session, self._attempt.job_id, self._attempt.fence)
            job.spool_offset = min(job.spool_offset, whole)

    def ship(self) -> None:
        """Writes whatever is new in the spool. Raises Fenced when another attempt has been let in, and Outage."""
        while self.ship_batch():
            pass

    def ship_batch(self) -> bool:
        """Writes the next lines of the spool, a bounded number; whether more lay behind them. Raises as `ship`."""
        with self._database.transaction() as session:
            offset = leases.hold(session, self._attempt.job_id, self._attempt.fence).spool_offset
        lines, has_more = self._read_lines(offset)
        if not lines:
            return False
        self._ship_lines(offset, lines)
        return has_more

    def _ship_lines(self, offset: int, lines: Sequence[bytes]) -> None:
        said = [self._publish(_parse(line)) for line in lines]
        try:
            self._write(offset, offset + sum(map(len, lines)), said)
        except (Unprocessable, ValueError, OverflowError) as error:  # a number that no column holds, or no clock shows
            if len(lines) == 1:
                self._write(offset, offset + len(lines[0]), [_refuse(lines[0], str(error))])
                return
            for line in lines:
                self._ship_lines(offset, [line])
                offset += len(line)

    def _write(self, offset: int, end: int, said: Sequence[events.TrainerEvent | RolloutsIndexed]) -> None:
        """What the spool says from `offset` to `end`, in one transaction."""
        self._remember_end(said)  # the answer to the commit may be lost, and these lines are not read again then
        with self._database.transaction() as session:
            job = leases.hold(session, self._attempt.job_id, self._attempt.fence)
            if job.spool_offset != offset:
                return
            for event in said:
                _WRITERS[type(event)](session, job, event)
            dropped = artifacts.drop_checkpoints(session, job, keep=self._attempt.keep_checkpoints)
            if begins := any(isinstance(event, events.Started) for event in said):
                dropped += self._find_strays(session, job)
            forgotten = self._forget_rollouts(session, job, said)
            job.spool_offset = end
            leases.prolong_lease(session, job, lease_s=self._attempt.lease_s)
            failpoint("flushing")
        artifacts.remove_folders(self._attempt.artifacts_dir, self._attempt.job_id, dropped)
        self._remove_recordings(forgotten)
        if begins:
            artifacts.remove_drafts(self._attempt.artifacts_dir, self._attempt.job_id)

    def _find_strays(self, session: Session, job: Job) -> list[int]:
        """Folders of earlier attempts' steps that no row tells of; those of steps done again are put there anew."""
        kept = [row.step for row in artifacts.all_checkpoints(session, job)]
        return artifacts.find_strays(self._attempt.artifacts_dir, self._attempt.job_id, kept=kept)

    def _forget_rollouts(self, session: Session, job: Job, said: Sequence[Any]) -> list[int]:
        """Drops the oldest recorded steps when new ones have taken the job over its share of the store."""
        if not any(isinstance(event, RolloutsIndexed) for event in said):
            return []
        most = self._attempt.max_rollout_bytes
        sizes = recordings.recording_sizes(self._attempt.artifacts_dir, self._attempt.job_id)
        steps = rollouts.drop_oldest(session, job, sizes, most_bytes=most)
        if steps:
            which = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps, {steps[0]} to {steps[-1]},"
            message = f"The recorded responses of {which} were dropped: a job keeps {most:,} bytes of them."
            add_event(session, job, message, kind="rollouts_dropped", data={"steps": steps, "most_bytes": most})
        return steps

    def _remove_recordings(self, steps: Sequence[int]) -> None:
        """From the store and from the run directory, where the same files may lie."""
        recordings.remove_recordings(self._attempt.artifacts_dir, self._attempt.job_id, steps)
        for step in steps:
            (self._attempt.run_dir / "rollouts" / f"step-{step:06d}.parquet").unlink(missing_ok=True)

    def _remember_end(self, said: Sequence[events.TrainerEvent | RolloutsIndexed]) -> None:
        """An attempt's own last words; what an earlier one said stands before its `started`."""
        for event in said:
            if isinstance(event, events.Started):
                self.failure = self.halt = None
            elif isinstance(event, events.Failed):
                self.failure = event
            elif isinstance(event, events.Halted):
                self.halt = event

    def _read_lines(self, offset: int) -> tuple[list[bytes], bool]:
        """Whole lines behind `offset`, on the disk before any row tells of them; and whether more were passed over.

        A line that is still being written has no newline yet and waits.
        """
        try:
            with (self._attempt.run_dir / "events.jsonl").open("rb") as spool:
                spool.seek(offset)
                read = spool.read(CHUNK)
                if is_full := len(read) == CHUNK:
                    read += spool.readline()
                if read:
                    os.fdatasync(spool.fileno())
        except FileNotFoundError:
            return [], False
        lines = [line + b"\n" for line in read.split(b"\n")[:-1]]
        return lines[:BATCH_LINES], is_full or len(lines) > BATCH_LINES

    def _publish(self, event: events.TrainerEvent) -> events.TrainerEvent | RolloutsIndexed:
        """Puts what was saved where it can be downloaded, before a row says so; other events pass unchanged."""
        if isinstance(event, events.CheckpointSaved | events.RolloutsRecorded):
            self.keep_alive()
        if isinstance(event, events.CheckpointSaved):
            return self._publish_checkpoint(event)
        if isinstance(event, events.RolloutsRecorded):
            return self._publish_rollouts(event)
        return event

    def _publish_rollouts(self, event: events.RolloutsRecorded) -> RolloutsIndexed | events.Warned:
        """A file that cannot be read costs its rows, never the run; a store without room pauses the job."""
        attempt = self._attempt
        try:
            source = attempt.run_dir / event.file
            path = recordings.publish_recording(
                source,
                attempt.artifacts_dir,
                attempt.job_id,
                event.step,
                fence=attempt.fence,
                keep_alive=self.keep_alive,
            )
            return RolloutsIndexed(event.step, recordings.index_recording(path))
        except (OSError, pa.ArrowException, KeyError) as error:
            if is_storage_full(error):
                raise
            message = f"The recorded rollouts of step {event.step} cannot be read ({error})."
            return events.Warned(time=event.time, step=event.step, message=message)

    def _publish_checkpoint(self, event: events.CheckpointSaved) -> events.TrainerEvent:
        attempt, source = self._attempt, self._attempt.run_dir / event.folder
        files = [file.path for file in event.files]
        try:
            artifacts.publish_folder(
                source,
                attempt.artifacts_dir,
                attempt.job_id,
                event.step,
                files=files,
                fence=attempt.fence,
                keep_alive=self.keep_alive,
            )
        except FileNotFoundError:  # newer ones replaced it while the database was away
            message = f"The checkpoint of step {event.step} was replaced by newer ones before it could be published."
            return events.Warned(time=event.time, step=event.step, message=message)
        failpoint("publishing")
        return event


def _parse(line: bytes) -> events.TrainerEvent:
    try:
        return events.parse_event(line.replace(b"\\u0000", b"\\ufffd"))  # Postgres keeps no NUL
    except ValidationError as error:
        return _refuse(line, f"{error.error_count()} errors")


def _refuse(line: bytes, why: str) -> events.Warned:
    message = f"The trainer wrote a line that is no event: {line[:200]!r} ({why})."
    return events.Warned(time=datetime.now(UTC).timestamp(), message=message)


# --- one writer per event -----------------------------------------------------------------------------------------


def _write_stage(session: Session, job: Job, event: events.StageChanged) -> None:
    job.stage = event.stage


def _write_started(session: Session, job: Job, event: events.Started) -> None:
    lost_steps = max(0, job.step - event.resume_step)
    lost_s = metrics.seconds_spent(session, job, above_step=event.resume_step)
    job.trained_tokens = metrics.truncate_metrics(session, job, above_step=event.resume_step)
    rollouts.truncate_rollouts(session, job, above_step=event.resume_step)
    artifacts.truncate_checkpoints(session, job, above_step=event.resume_step)
    job.step = event.resume_step
    origin = f"resumes after step {event.resume_step}" if event.resume_step else "begins"
    sizes = f"{event.num_parameters:,} parameters, {event.num_train_rows:,} rows"
    message = f"Training {origin} on {event.device}: {sizes}."
    if event.engine:
        message += f" Responses are drawn by {event.engine}."
    if lost_steps:
        message += f" {lost_steps} step(s) behind the last checkpoint, {lost_s:.1f} s of work, are lost and done again."
    lost = {"lost_steps": lost_steps, "lost_s": round(lost_s, 3)}
    data = event.model_dump(mode="json", exclude={"type", "time"}) | lost
    if job.state == JobState.STARTING:
        move(session, job, JobState.RUNNING, message, **data)
    else:
        add_event(session, job, message, kind="started", data=data)


def _write_step(session: Session, job: Job, event: events.StepDone) -> None:
    metrics.add_metrics(session, job, "train", event.step, event.metrics, _moment(event))
    job.trained_tokens += int(event.metrics.get("tokens/trained") or 0)
    job.step = max(job.step, event.step)
    if event.flags:
        message = f"Step {event.step}: {', '.join(event.flags)}."
        add_event(session, job, message, kind="warning", level="warn", data={"step": event.step})


def _write_evaluation(session: Session, job: Job, event: events.Evaluated) -> None:
    if metrics.add_metrics(session, job, "evaluation", event.step, event.metrics, _moment(event)):
        reward = event.metrics.get("eval/reward_mean")
        shown = "unknown" if reward is None else f"{reward:.3f}"
        message = f"Evaluation after step {event.step}: mean reward {shown}."
        add_event(session, job, message, kind="evaluation", data={"step": event.step, "final": event.final})


def _write_checkpoint(session: Session, job: Job, event: events.CheckpointSaved) -> None:
    if event.step > artifacts.greatest_step(session, job):  # said again by a resumed attempt, it is no progress
        job.attempts_without_progress = 0
    files = [file.model_dump() for file in event.files]
    values = metrics.values_at(session, job, event.step) | ({artifacts.BEST: 1.0} if event.best else {})
    artifacts.add_checkpoint(session, job, step=event.step, final=event.final, files=files, metrics=values)
    size = sum(file.bytes for file in event.files)
    praise = ", the best so far" if event.best else ""
    message = f"Checkpoint of step {event.step}{praise}: {len(files)} files, {size:,} bytes."
    data = {"step": event.step, "final": event.final, "best": event.best, "bytes": size}
    add_event(session, job, message, kind="checkpoint", data=data)


def _write_rollouts(session: Session, job: Job, indexed: RolloutsIndexed) -> None:
    rollouts.replace_rollouts(session, job, indexed.step, indexed.rows)


def _write_rejected(session: Session, job: Job, event: events.CheckpointRejected) -> None:
    message = f"Checkpoint {event.folder} was rejected: {event.reason}."
    data = {"folder": event.folder, "reason": event.reason}
    add_event(session, job, message, kind="checkpoint_rejected", level="warn", data=data)


def _write_grader_errors(session: Session, job: Job, event: events.GraderErrors) -> None:
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(event.errors.items()))
    message = f"The grader could not judge {sum(event.errors.values())} of {event.num_responses} responses of step "
    data = event.model_dump(mode="json", exclude={"type", "time"})
    add_event(session, job, f"{message}{event.step}: {counts}.", kind="grader_errors", level="error", data=data)


def _write_warning(session: Session, job: Job, event: events.Warned) -> None:
    add_event(session, job, event.message, kind="warning", level="warn", data={"step": event.step})


def _write_finished(session: Session, job: Job, event: events.Finished) -> None:
    if event.reason == "stopped":
        add_event(session, job, f"The trainer stopped after step {event.step}, as asked.", kind="stopped")
        return
    job.stop_reason = event.reason
    if job.state in (JobState.RUNNING, JobState.PAUSING):
        move(session, job, JobState.EXPORTING, f"All {event.step} steps are done; exporting.")


def _write_failed(session: Session, job: Job, event: events.Failed) -> None:
    data = event.model_dump(mode="json", exclude={"type", "time"})
    add_event(session, job, f"The trainer gave up: {event.message}", kind="failure", level="error", data=data)


def _write_halted(session: Session, job: Job, event: events.Halted) -> None:
    data = event.model_dump(mode="json", exclude={"type", "time"})
    add_event(session, job, f"The trainer cannot go on: {event.message}", kind="halt", level="warn", data=data)


def _moment(event: events.Event) -> datetime:
    return datetime.fromtimestamp(event.time, UTC)


_WRITERS: dict[type[Any], Callable[[Session, Job, Any], None]] = {
    events.StageChanged: _write_stage,
    events.Started: _write_started,
    events.StepDone: _write_step,
    events.Evaluated: _write_evaluation,
    events.CheckpointSaved: _write_checkpoint,
    RolloutsIndexed: _write_rollouts,
    events.CheckpointRejected: _write_rejected,
    events.GraderErrors: _write_grader_errors,
    events.Warned: _write_warning,
    events.Finished: _write_finished,
    events.Halted: _write_halted,
    events.Failed: _write_failed,
}
