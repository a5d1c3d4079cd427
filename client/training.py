"""The trainer with no platform: a config file in, a run directory out, its events drawn as they are written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from client.display import RunDisplay
from client.errors import ClientError
from client.process import tail
from client.submission import read_mapping
from stapo_core import events
from stapo_core.config import RunConfig
from stapo_core.config.faults import find_faults
from stapo_core.estimate import Estimate, estimate_run

_PATH_FIELDS = ("model", "training_file", "validation_file")
_TICK_S = 0.1


class BadConfig(ClientError):
    """The config file is refused, field by field, or the run directory holds another run."""


def train(config_file: Path, run_dir: Path, console: Console) -> int:
    """Trains, or goes on with what `run_dir` holds; returns the trainer's exit code.

    Ctrl-C asks the trainer to save and stop; a second one kills it.
    """
    config = read_config(config_file)
    prepare_run(config, run_dir)
    spool, log = run_dir / "events.jsonl", run_dir / "trainer.log"
    reader = _SpoolReader(spool)
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: S603  # our own program, no shell
            [sys.executable, "-P", "-m", "stapo_core", str(run_dir), "--die-with-parent"],
            stdin=subprocess.PIPE,  # its end tells the trainer that we are gone
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with _forward_interrupts(process), RunDisplay(console, str(run_dir)) as display:
        while True:
            code = process.poll()  # before the read, so that the last lines are read after the end
            for event in reader.read():
                _show(display, event)
            if code is not None:
                break
            time.sleep(_TICK_S)
    if code not in (events.EXIT_DONE, events.EXIT_STOPPED, events.EXIT_HALTED):
        console.print(f"The trainer ended with code {code}. The end of {log}:\n{tail(log)}", markup=False)
    return code


def estimate(config_file: Path) -> Estimate:
    """What the run would take on this machine. Raises BadConfig, also for a model whose sizes cannot be read."""
    config = read_config(config_file)
    try:
        return estimate_run(config)
    except (OSError, ValueError, KeyError) as error:
        raise BadConfig(
            f"{config.model} tells no sizes ({error}); name a model's folder with its config.json"
        ) from error


def read_config(path: Path) -> RunConfig:
    """Reads a YAML config; paths in it are relative to it. Raises BadConfig with one line for each fault."""
    content = read_mapping(path)
    named = content.get("validation_files")
    more = [each for each in named if isinstance(each, dict)] if isinstance(named, list) else []
    for holder, field in [*((content, field) for field in _PATH_FIELDS), *((each, "file") for each in more)]:
        if isinstance(value := holder.get(field), str):
            holder[field] = str((path.parent / Path(value).expanduser()).resolve())
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        faults = [f"  {fault}" for fault in find_faults(error, RunConfig)]
        raise BadConfig("\n".join([f"{path} is refused:", *faults])) from error


def prepare_run(config: RunConfig, run_dir: Path) -> None:
    """Writes `config.json`. Raises BadConfig when the directory holds a run of another config."""
    run_dir.mkdir(parents=True, exist_ok=True)
    target = run_dir / "config.json"
    if target.exists():
        if json.loads(target.read_text()) != config.model_dump(mode="json"):
            raise BadConfig(f"{run_dir} holds a run of another config. Name another folder with --run-dir.")
        return
    unfinished = run_dir / ".config.json.new"
    unfinished.write_text(config.model_dump_json(indent=2) + "\n")
    unfinished.replace(target)


class _SpoolReader:
    """Reads what is appended to a spool from now on, whole lines only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        self._offset = content.rfind(b"\n") + 1

    def read(self) -> list[events.TrainerEvent]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [events.parse_event(line) for line in whole.splitlines()]


def _show(display: RunDisplay, event: Any) -> None:
    match event:
        case events.Started():
            display.show_state("running", step=event.resume_step, num_steps=event.num_steps)
            display.show_note(f"{event.num_parameters:,} parameters on {event.device}, {event.num_train_rows} prompts")
            if event.engine:
                display.show_note(f"responses are drawn by {event.engine}")
        case events.StageChanged():
            display.show_stage(event.stage)
        case events.StepDone():
            display.show_step(event.step, event.metrics)
        case events.Evaluated():
            display.show_evaluation(event.step, event.metrics)
        case events.CheckpointSaved():
            display.show_note(f"checkpoint saved: {event.folder}")
        case events.CheckpointRejected():
            display.show_note(f"checkpoint {event.folder} is not used: {event.reason}")
        case events.GraderErrors():
            kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(event.errors.items()))
            display.show_note(f"step {event.step}: of {event.num_responses} responses, not judged: {kinds}")
            for example in event.examples:
                display.show_note(f"{example.kind}: {example.prompt!r} -> {example.response!r}")
        case events.Warned():
            display.show_note(f"warning: {event.message}")
        case events.Failed():
            where = f" ({event.param})" if event.param else ""
            display.show_note(f"failed while {event.stage}: {event.message}{where}")
        case events.Halted():
            display.show_state("paused")
            display.show_note(f"halted: {event.message}; the same command goes on")
        case events.Finished():
            display.show_state("stopped" if event.reason == "stopped" else "done", step=event.step)


@contextmanager
def _forward_interrupts(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The first signal asks the trainer to save and stop, the second ends it."""
    sent: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        sent.append(number)
        if process.returncode is None:
            os.kill(process.pid, signal.SIGTERM if len(sent) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
