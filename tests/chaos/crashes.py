"""Checkpoint writing on a disk that forgets: whatever a crash leaves, the newest whole checkpoint is found.

Records real saves, prunes, marks and publications, then loads from every state that `disk` makes of the record.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from api.store import artifacts
from stapo_core.config import CheckpointConfig
from stapo_core.events import StepDone
from stapo_core.folders import Folders, Rejected, folder_name, sync, verify
from stapo_core.spool import Spool
from tests.chaos.disk import Tape, Tree, build, crash_states
from tests.chaos.trainer import fill, read

MEMORY = Path("/dev/shm")  # noqa: S108  # thousands of small trees are made; they need no disk
NUM_SAVES = 8
KEEP = 2
BEST = 2


@dataclass(frozen=True)
class Promise:
    """What had been said when a crash came: the last step that was saved, and the last that was published."""

    saved: int = 0
    published: int = 0


@dataclass
class Findings:
    """States looked at, and what was wrong in them."""

    num_states: int = 0
    num_changes: int = 0
    breaches: list[str] = field(default_factory=list)


def record(root: Path) -> Tape:
    """A run that saves, marks its best, prunes and has everything published."""
    tape = Tape(root)
    with tape.recording():
        run_dir, store = root / "run", root / "artifacts"
        run_dir.mkdir()
        sync(root)  # a run directory is there before its trainer starts
        spool = Spool(run_dir / "events.jsonl")
        checkpoints = Folders(run_dir, CheckpointConfig(keep=KEEP), spool=spool)
        published = 0
        for step in range(1, NUM_SAVES + 1):
            spool.emit(StepDone, step=step, metrics={})
            checkpoints.put(step, lambda draft, step=step: fill(draft, content(step)))  # type: ignore[misc]
            tape.mark(Promise(step, published))
            if step == BEST:
                checkpoints.mark_best(step, final=False)
            artifacts.publish_folder(run_dir / "checkpoints" / folder_name(step), store, "job", step)
            published = step
            tape.mark(Promise(step, published))
        spool.close()
    return tape


def content(step: int) -> str:
    """What the checkpoint of a step holds."""
    return json.dumps({"step": step, "value": step * 1_000_003})


def explore(
    *, seed: int, per_prefix: int, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Findings:
    """Loads from every crash state of a recorded run."""
    source = random.Random(seed)
    findings = Findings()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        root = Path(folder) / "disk"
        root.mkdir()
        tape = record(root)
        findings.num_changes = len(tape.changes)
        for number, (done, tree) in enumerate(crash_states(tape, source, per_prefix=per_prefix)):
            state = Path(folder) / f"state-{number}"
            state.mkdir()
            build(tree, state)
            promise = next((note for at, note in reversed(tape.marks) if at <= done), Promise())
            findings.num_states += 1
            findings.breaches += [f"after change {done}: {breach}" for breach in look(state, tree, promise)]
            shutil.rmtree(state)
            on_progress(done, len(tape.changes))
    return findings


def look(state: Path, tree: Tree, promise: Promise) -> list[str]:
    """What is wrong in one state, seen by the trainer that starts in it and by whoever downloads."""
    breaches = []
    newest = newest_whole(tree)
    run_dir = state / "run"
    run_dir.mkdir(exist_ok=True)
    spool = Spool(run_dir / "events.jsonl")
    found = Folders(run_dir, CheckpointConfig(keep=KEEP), spool=spool).find(read)
    spool.close()
    step = found[0] if found else 0
    if step != newest:
        breaches.append(f"it resumes from step {step}, and step {newest} is whole")
    if step < promise.saved:
        breaches.append(f"step {promise.saved} was saved, and it resumes from step {step}")
    if found and found[1] != step * 1_000_003:
        breaches.append(f"the checkpoint of step {step} holds another's content")
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    told = {event["step"] for event in events if event["type"] == "step"}
    if not set(range(1, promise.saved + 1)) <= told:
        breaches.append(f"step {promise.saved} was saved, and its run tells of the steps {sorted(told)}")
    if promise.published:
        try:
            verify(artifacts.folder_path(state / "artifacts", "job", promise.published))
        except Rejected as rejection:
            breaches.append(f"step {promise.published} was published, and cannot be downloaded: {rejection}")
    return breaches


def newest_whole(tree: Tree) -> int:
    """The newest step whose manifest lists just what is there, found without the code under test."""
    whole = [0]
    for path, text in tree.items():
        if not (path.startswith("run/checkpoints/step-") and path.endswith("/manifest.json") and text):
            continue
        folder = path.removesuffix("manifest.json")
        try:
            manifest = json.loads(text)
        except ValueError:
            continue
        listed = {folder + file["path"]: file["sha256"] for file in manifest["files"]}
        if all(hashlib.sha256(tree.get(name) or b"").hexdigest() == digest for name, digest in listed.items()):
            whole.append(manifest["step"])
    return max(whole)
