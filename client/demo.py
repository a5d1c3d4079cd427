"""A newcomer's first ten minutes: a platform, a small base model, a job over REST, and what came of it.

It is a guest like any other: everything after the platform's start goes over the wire.
"""

from __future__ import annotations

import filecmp
import hashlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from client.display import Stopwatch
from client.errors import ClientError
from client.http import Client
from client.objects import JobObject, MetricsPoint
from client.process import tail
from client.running import RunningPlatform, find_platform, start_platform
from client.settings import LaunchSettings
from client.watching import describe_end, watch_job
from stapo_core.presets import DEMO_TRAIN

BASE_MODEL = "stapo-demo-base"
_RECIPE = ("stapo_core.warmup", "stapo_core.arithmetic")
_NUM_ANSWERS = 3
_GRADER = {"type": "numeric", "name": "sum", "reference": "{{item.answer}}"}


class DemoFailed(ClientError):
    """A part of the demo went wrong; the text says which, with what its log says."""


@dataclass(frozen=True)
class BaseModel:
    """The small model and its problems, which the model has not seen."""

    train: Path
    validation: Path


@dataclass(frozen=True)
class Outcome:
    """What the job's metrics say of it."""

    accuracy_before: float
    accuracy_after: float
    entropy_first: float
    entropy_last: float
    masked_tokens: int
    trained_tokens: int


def run(settings: LaunchSettings, console: Console) -> None:
    """Everything, in order. On a terminal the platform stays up until Ctrl-C. Raises DemoFailed, StartError."""
    watch = Stopwatch()
    with _platform(settings, console) as platform:
        base = make_base_model(platform.home, console)
        with Client(platform.api_url, platform.api_key) as client:
            job = _train(client, base, platform, console)
            outcome = read_outcome(client, str(job["id"]))
            folder = _download(client, str(job["id"]))
        answers = sample_answers(folder, base.validation)
        _report(console, outcome, folder, answers)
        page = _page(platform, job)
        console.print(f"Done in {watch}. The run, with its curves: {page}", highlight=False, soft_wrap=True)
        if sys.stdout.isatty() and platform.process is not None:
            _stay(platform, console)


@contextmanager
def _platform(settings: LaunchSettings, console: Console) -> Iterator[RunningPlatform]:
    """The platform that runs already, or one that is stopped in the end, whatever happens in between."""
    found = find_platform(settings.home)
    if found is not None:
        console.print(f"The platform runs already: {found.api_url}", highlight=False)
        yield found
        return
    console.print(
        f"Starting the platform (Postgres, Valkey, API, worker, dashboard) in {settings.home}", highlight=False
    )
    with _terminate_like_interrupt():
        platform = start_platform(settings)
        try:
            console.print(f"API {platform.api_url}   dashboard {platform.dashboard_url}", highlight=False)
            yield platform
        finally:
            platform.stop()


def make_base_model(home: Path, console: Console) -> BaseModel:
    """Makes the base model once, and lets the platform know it under its name."""
    made, known = base_folder(home), home / "models" / BASE_MODEL
    if not made.exists():
        console.print("Making the base model: a small Qwen3 learns addition, in part wrongly", highlight=False)
        command = [sys.executable, "-P", "-m", "stapo_core.warmup", str(made)]
        result = subprocess.run(command, stdin=subprocess.DEVNULL)  # noqa: S603
        if result.returncode != 0:
            raise DemoFailed(f"The base model could not be made (exit code {result.returncode}).")
    if not _is_same_model(made / "model", known):
        known.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = home / "demo" / "model.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(made / "model", unfinished)
        shutil.rmtree(known, ignore_errors=True)
        unfinished.rename(known)
    return BaseModel(train=made / "train.jsonl", validation=made / "validation.jsonl")


def base_folder(home: Path) -> Path:
    """Where the base model is cached, named for its recipe: a release that changes the recipe makes a new one."""
    recipe = hashlib.sha256()
    for module in _RECIPE:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise DemoFailed(f"The module {module} is not installed. Install it with: pip install 'stapo[all]'")
        recipe.update(Path(spec.origin).read_bytes())
    return home / "demo" / recipe.hexdigest()[:12]


def _is_same_model(made: Path, known: Path) -> bool:
    weights = "model.safetensors"
    return (known / weights).is_file() and filecmp.cmp(made / weights, known / weights, shallow=False)


def job_body(training_file: str, validation_file: str) -> dict[str, Any]:
    """The request that the demo makes, as the documentation shows it."""
    return {
        "model": BASE_MODEL,
        "training_file": training_file,
        "validation_file": validation_file,
        "suffix": "demo",
        "seed": 0,
        "method": {"type": "reinforcement", "reinforcement": {"grader": _GRADER, "config": DEMO_TRAIN}},
    }


def _train(client: Client, base: BaseModel, platform: RunningPlatform, console: Console) -> JobObject:
    training_file, validation_file = (str(client.upload_file(path)["id"]) for path in (base.train, base.validation))
    job = client.create_job(job_body(training_file, validation_file))
    page = _page(platform, job)
    console.print(f"Submitted {job['id']}; watch it in the browser: {page}", highlight=False, soft_wrap=True)
    job = watch_job(client, str(job["id"]), console)
    if job["state"] != "succeeded":
        log = platform.home / "runs" / str(job["id"]) / "trainer.log"
        raise DemoFailed(f"{describe_end(job)}\nThe end of {log}:\n{tail(log)}")
    return job


def read_outcome(client: Client, job_id: str) -> Outcome:
    """Reads the metrics of a job that has ended. Raises DemoFailed when some are missing."""
    evaluations = client.get_metrics(job_id, kind="evaluation")["data"]
    steps = client.get_metrics(job_id, kind="train")["data"]
    if len(evaluations) < 2 or not steps:
        raise DemoFailed(f"{job_id} left {len(evaluations)} evaluations and {len(steps)} steps; that is too few.")
    return Outcome(
        accuracy_before=_figure(evaluations[0], "eval/reward_mean"),
        accuracy_after=_figure(evaluations[-1], "eval/reward_mean"),
        entropy_first=_figure(steps[0], "policy/entropy"),
        entropy_last=_figure(steps[-1], "policy/entropy"),
        masked_tokens=round(sum(_figure(step, "mask/tokens") for step in steps)),
        trained_tokens=round(sum(_figure(step, "tokens/trained") for step in steps)),
    )


def _figure(point: MetricsPoint, key: str) -> float:
    value = point["values"].get(key)
    if value is None:
        raise DemoFailed(f"Step {point['step']} has no {key}.")
    return value


def _download(client: Client, job_id: str) -> Path:
    checkpoint = client.list_checkpoints(job_id)["data"][0]
    return client.download_checkpoint(str(checkpoint["id"]), Path("runs").absolute() / "demo" / job_id)


def sample_answers(model: Path, problems: Path) -> list[dict[str, Any]]:
    """Draws one answer to each of the first held-out problems with the downloaded checkpoint."""
    asked = ("--input", str(problems), "--limit", str(_NUM_ANSWERS))
    command = [sys.executable, "-P", "-m", "stapo_core.answer", str(model), *asked]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)  # noqa: S603
    if result.returncode != 0:
        raise DemoFailed(f"The checkpoint in {model} could not be sampled from:\n{result.stderr[-2000:]}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def _report(console: Console, outcome: Outcome, folder: Path, answers: list[dict[str, Any]]) -> None:
    table = Table.grid(padding=(0, 2))
    share = outcome.masked_tokens / max(outcome.trained_tokens, 1)
    rows = {
        "accuracy on held-out problems": f"{outcome.accuracy_before:.1%} → {outcome.accuracy_after:.1%}",
        "entropy (nats per token)": f"{outcome.entropy_first:.3f} → {outcome.entropy_last:.3f}",
        "tokens masked": f"{outcome.masked_tokens} of {outcome.trained_tokens:,} ({share * 1e6:.0f} ppm)",
    }
    for name, text in rows.items():
        table.add_row(Text(name, style="dim"), Text(text, overflow="fold"))
    for index, answer in enumerate(answers):
        name, text = "" if index else "sampled answers", f"{answer['prompt']} {answer['response']}"
        table.add_row(Text(name, style="dim"), Text(text, overflow="fold"))
    console.print(Panel(table, title="STAPO demo", title_align="left"))
    console.print(f"Checkpoint, every sha256 right: {folder}", highlight=False, soft_wrap=True)


def _stay(platform: RunningPlatform, console: Console) -> None:
    console.print("The platform stays up until Ctrl-C.")
    while platform.is_alive:
        try:
            time.sleep(0.5)
        except KeyboardInterrupt:
            return


def _page(platform: RunningPlatform, job: JobObject) -> str:
    return f"{platform.dashboard_url}/run?run={job['id']}"


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind as Ctrl-C does, so that what we started is stopped."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
