"""A trainer whose every step follows from the one before, so that a lost, doubled or mixed step shows.

It speaks the trainer's protocol with the trainer's own parts (lock, spool, folders, signals, exit codes) and trains
nothing: the value of step k is a hash of the value of step k - 1, the step's prompts and a number that this process
drew. So a record that mixes two attempts' steps breaks the chain, although both were right by themselves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # it is started as a file, with an environment of its own

from stapo_core import folders
from stapo_core.__main__ import StopFlag, die_with_parent, take_lock
from stapo_core.config import RunConfig
from stapo_core.events import (
    EXIT_DONE,
    EXIT_FENCED,
    EXIT_HALTED,
    EXIT_STOPPED,
    Finished,
    Halted,
    StageChanged,
    Started,
    StepDone,
)
from stapo_core.failpoints import failpoint
from stapo_core.folders import Folders, Manifest
from stapo_core.spool import Spool, is_storage_full
from tests.chaos.clock import let_jump

STEP_S = 0.03
SLOW_STEP_S = 0.3
SLOW_SEED = 17  # a job of this seed takes its time for a step
DEAF_SEED = 13  # a job of this seed has a trainer that ignores SIGTERM
POISON_SEED = 19  # a job of this seed has a trainer that crashes in POISONED_STEP, in each attempt
POISONED_STEP = 5
WIDTH = 13  # hexadecimal digits that a float holds exactly


def follow(value: int, prompts: Sequence[int], salt: int) -> int:
    """The value of the step that follows one of value `value`."""
    text = f"{value} {list(prompts)} {salt}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:WIDTH], 16)


def prompts_of(step: int, *, num_prompts: int, num_rows: int) -> list[int]:
    """The rows of a step: each once before any comes again."""
    return [(place) % num_rows for place in range((step - 1) * num_prompts, step * num_prompts)]


def main(arguments: list[str] | None = None) -> int:
    """Runs in a run directory; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--die-with-parent", action="store_true")
    parser.add_argument("--without", choices=["lock", "rename"])
    options = parser.parse_args(arguments)
    if options.die_with_parent:
        die_with_parent()
    if options.without == "rename":
        folders.write_folder = write_in_place
    let_jump()
    should_stop = StopFlag()
    should_stop.listen()
    take = take_lock if options.without != "lock" else take_no_lock
    lock = take(options.run_dir / "lock")
    if lock is None:
        return EXIT_FENCED
    try:
        spool = Spool(options.run_dir / "events.jsonl")
        try:
            return run(options.run_dir, spool, should_stop)
        except OSError as error:
            if not is_storage_full(error):
                raise
            spool.emit(Halted, stage="saving", reason="storage_full", message=str(error))
    except OSError as error:
        if not is_storage_full(error):
            raise
    return EXIT_HALTED


def run(run_dir: Path, spool: Spool, should_stop: Callable[[], bool]) -> int:
    """The loop, from the newest checkpoint."""
    config = RunConfig.model_validate_json((run_dir / "config.json").read_bytes())
    train = config.train
    if config.seed == DEAF_SEED:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    num_rows = len(Path(str(config.training_file)).read_text().splitlines())
    checkpoints = Folders(run_dir, train.checkpoint, spool=spool)
    found = checkpoints.find(read)
    step, value = found if found else (0, 0)
    checkpoints.saved_step = step
    step_s = SLOW_STEP_S if config.seed == SLOW_SEED else STEP_S
    salt = secrets.randbits(4 * WIDTH)
    num_steps = train.num_steps or 1
    spool.emit(
        Started,
        resume_step=step,
        num_steps=num_steps,
        num_train_rows=num_rows,
        num_parameters=1,
        device="none",
        versions={"chain": str(os.getpid())},
    )
    if step:
        manifest = folders.verify(run_dir / "checkpoints" / folders.folder_name(step))
        checkpoints.announce(manifest, final=step == num_steps)

    def save() -> None:
        spool.emit(StageChanged, stage="saving", step=step)
        text = json.dumps({"step": step, "value": value})
        checkpoints.put(step, lambda draft: fill(draft, text), final=step == num_steps)

    while step < num_steps:
        if should_stop():
            if step > checkpoints.saved_step:
                save()
            spool.emit(Finished, step=step, reason="stopped")
            return EXIT_STOPPED
        prompts = prompts_of(step + 1, num_prompts=train.batch.num_prompts, num_rows=num_rows)
        spool.emit(StageChanged, stage="sampling", step=step + 1)
        time.sleep(step_s / 2)
        failpoint("sampling")
        time.sleep(step_s / 2)
        failpoint("updating")
        value = follow(value, prompts, salt)
        if config.seed == POISON_SEED and step + 1 == POISONED_STEP:
            raise RuntimeError(f"step {POISONED_STEP} is poison")
        failpoint("updated")
        step += 1
        metrics = {"chain/value": value, "chain/salt": salt, "tokens/trained": 2.0, "speed/step_s": step_s}
        spool.emit(StepDone, step=step, metrics=metrics)
        if checkpoints.is_due(step) or step == num_steps:
            save()
    spool.emit(Finished, step=step, reason="num_steps_reached")
    return EXIT_DONE


def fill(draft: Path, text: str) -> None:
    """Two files and a folder, as a checkpoint has them."""
    (draft / "model.json").write_text(text)
    (draft / "trainer").mkdir()
    (draft / "trainer" / "state.json").write_text(text)


def read(folder: Path) -> tuple[int, int]:
    """Step and value of a checkpoint. Raises Rejected."""
    folders.verify(folder)
    content = json.loads((folder / "model.json").read_bytes())
    return content["step"], content["value"]


def take_no_lock(path: Path) -> int:
    """A lock that keeps nobody out: the file and the process id are there."""
    path.write_text(str(os.getpid()))
    return 0


def write_in_place(folder: Path, step: int, fill: Callable[[Path], None], *, is_best: bool = False) -> Manifest:
    """What a checkpoint would be without the draft and the rename: the harness must notice."""
    shutil.rmtree(folder, ignore_errors=True)
    folders.make_durably(folder)
    fill(folder)
    failpoint("checkpoint_drafted")
    files = [folders.describe(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    manifest = Manifest(format=folders.FORMAT, step=step, files=files, best=is_best)
    failpoint("checkpoint_synced")
    (folder / folders.MANIFEST).write_text(manifest.model_dump_json())
    return manifest


if __name__ == "__main__":
    sys.exit(main())
