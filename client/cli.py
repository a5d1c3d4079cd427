"""The command line: parses, calls one function, prints.

Exit codes: 0 done; 1 it failed, and a sentence on stderr says why; 2 wrong usage; 3 the job that was watched failed
or was cancelled; 130 Ctrl-C. `stapo train` gives the trainer's own: 74 halted, 75 stopped with a
checkpoint, 78 bad input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from client import demo as demonstration
from client.chromium import find_browser, install_browser
from client.connection import connect
from client.doctor import examine
from client.errors import ClientError
from client.http import Client
from client.launch import Supervisor
from client.objects import CheckpointObject, JobObject
from client.probing import probe_job_file, show_probe
from client.process import StartError
from client.settings import MAX_PORT, read_settings
from client.submission import submit_job
from client.training import estimate
from client.training import train as train_alone
from client.watching import describe_end, read_whole_log, visible, watch_job, watch_job_as_json

EXIT_FAILED = 1
EXIT_JOB_DID_NOT_SUCCEED = 3
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="stapo",
    help="Reinforcement fine-tuning that stays stable: run the platform, submit jobs, watch them, fetch checkpoints.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, ftjob-…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ApiPort = Annotated[
    int | None, typer.Option("--port", min=1, max=MAX_PORT, help="Port of the API (STAPO_API_PORT, else 8000).")
]
DashboardPort = Annotated[
    int | None,
    typer.Option(
        "--dashboard-port", min=1, max=MAX_PORT, help="Port of the dashboard (STAPO_DASHBOARD_PORT, else 8501)."
    ),
]


@app.command()
def up(port: ApiPort = None, dashboard_port: DashboardPort = None) -> None:
    """Run the platform on this machine until Ctrl-C; a second Ctrl-C does not wait for trainers to save."""
    with _sentences():
        settings = read_settings(os.environ, api_port=port, dashboard_port=dashboard_port)
        Supervisor(settings, _say).run()


@app.command()
def demo(port: ApiPort = None, dashboard_port: DashboardPort = None) -> None:
    """Train a small model on this machine over the API, from nothing to a better checkpoint, in a few minutes."""
    with _sentences():
        settings = read_settings(os.environ, api_port=port, dashboard_port=dashboard_port)
        demonstration.run(settings, out)


@app.command()
def submit(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job, as YAML or JSON.")],
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload the data files that a job file names, and submit the job."""
    with _sentences(), connect(os.environ) as client:
        job = submit_job(client, job_file)
        if not watch:
            typer.echo(json.dumps(job) if as_json else job["id"])
            return
        _watch(client, str(job["id"]), as_json)


@app.command()
def probe(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job, as YAML or JSON.")],
    num_prompts: Annotated[int, typer.Option("--prompts", min=1, max=32, help="Problems to ask.")] = 8,
    num_samples: Annotated[int, typer.Option("--samples", min=2, max=16, help="Responses to each.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Score a few of the model's own responses by a job's grader, before the job is spent on it."""
    with _sentences(), connect(os.environ) as client:
        found = probe_job_file(client, job_file, num_prompts=num_prompts, num_samples=num_samples)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        show_probe(found, out)
    if found["verdict"] != "usable":
        raise typer.Exit(EXIT_FAILED)


@app.command()
def watch(job_id: JobId, as_json: AsJson = False) -> None:
    """Follow a job until it ends."""
    with _sentences(), connect(os.environ) as client:
        _watch(client, job_id, as_json)


@app.command()
def download(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="A job (its newest checkpoint) or a checkpoint.")],
    folder: Annotated[Path | None, typer.Option("--out", help="The folder to make; by default named after it.")] = None,
    step: Annotated[int | None, typer.Option("--step", help="The checkpoint after this step.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a checkpoint; go on where a broken download stopped; check every file's sha256."""
    with _sentences(), connect(os.environ) as client:
        checkpoint = _find_checkpoint(client, job_id, step)
        target = folder or Path(f"{checkpoint['fine_tuning_job_id']}-step-{checkpoint['step_number']:06d}")
        with _download_bar() as bar:
            task = bar.add_task(str(target), total=None)
            client.download_checkpoint(
                str(checkpoint["id"]),
                target,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        answer = {"folder": str(target.resolve()), "checkpoint": checkpoint["id"], "step": checkpoint["step_number"]}
        typer.echo(json.dumps(answer) if as_json else f"{target}: step {checkpoint['step_number']}, every sha256 right")


@app.command()
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Ask for a job to be cancelled; it keeps its checkpoints."""
    _change(Client.cancel_job, job_id, as_json)


@app.command()
def pause(job_id: JobId, as_json: AsJson = False) -> None:
    """Ask for a job to be paused: it saves a checkpoint and gives its worker back."""
    _change(Client.pause_job, job_id, as_json)


@app.command()
def resume(job_id: JobId, as_json: AsJson = False) -> None:
    """Put a paused job back into the queue; it goes on from its last checkpoint."""
    _change(Client.resume_job, job_id, as_json)


@app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the trainer's log, which is kept when the worker is gone."""
    with _sentences(), connect(os.environ) as client:
        for text in read_whole_log(client, job_id, follow=follow):
            typer.echo(json.dumps({"text": text}) if as_json else visible(text), nl=as_json)


@app.command()
def jobs(
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    status: Annotated[str | None, typer.Option("--status", help="Only jobs with this status.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs."""
    with _sentences(), connect(os.environ) as client:
        page = client.list_jobs(limit=limit, status=status)
    if as_json:
        typer.echo(json.dumps(page))
        return
    table = Table("job", "state", "model", "step", "reward", box=None, header_style="dim")
    for job in page["data"]:
        reward = (job.get("latest") or {}).get("reward/mean")
        steps = f"{job.get('step') or 0}/{job.get('num_steps') or '?'}"
        table.add_row(job["id"], job["state"], job["model"], steps, "–" if reward is None else f"{reward:.3f}")
    out.print(table)


@app.command()
def train(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A run's config.")],
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="The run directory; by default runs/<name of the config>.")
    ] = None,
    only_estimate: Annotated[
        bool, typer.Option("--estimate", help="Print the memory and work it would take, and start nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the estimate as JSON for scripts.")] = False,
) -> None:
    """Train with no platform: config in, run directory out. The same command goes on where it was stopped."""
    with _sentences():
        if only_estimate:
            taken = estimate(config_file)
            typer.echo(json.dumps({**asdict(taken), "total": taken.total}) if as_json else "\n".join(taken.lines()))
            return
        if as_json:
            raise typer.BadParameter("--json goes with --estimate; a run's own record is its events.jsonl")
        code = train_alone(config_file, run_dir or Path("runs") / config_file.stem, out)
    raise typer.Exit(code)


@app.command()
def doctor(
    install: Annotated[
        bool, typer.Option("--install-browser", help="Install Chromium for the tests, where there is none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is missing on this machine and how to mend it."""
    with _sentences():
        if install:
            typer.echo(f"Chromium: {find_browser() or install_browser()}")
            return
        findings = list(examine(read_settings(os.environ)))
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings]))
    else:
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]missing[/]" if finding.is_needed else "[yellow]note[/]"
            out.print(mark, Text(f"{finding.name}: {finding.detail}"), highlight=False, soft_wrap=True)
            if not finding.ok:
                out.print(f"        {finding.remedy}", markup=False, highlight=False, soft_wrap=True)
    if any(finding.is_needed and not finding.ok for finding in findings):
        raise typer.Exit(EXIT_FAILED)


@contextmanager
def _sentences() -> Iterator[None]:
    """Turns what we know can go wrong into a sentence on stderr and exit code 1."""
    try:
        yield
    except (ClientError, StartError) as error:
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        err.print(f"{where}{error.strerror or error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(EXIT_INTERRUPTED) from error


def _change(change: Callable[[Client, str], JobObject], job_id: str, as_json: bool) -> None:
    with _sentences(), connect(os.environ) as client:
        job = change(client, job_id)
        typer.echo(json.dumps(job) if as_json else f"{job['id']} {job['state']}")


def _say(text: str) -> None:
    """Prints a line, and survives a terminal that is gone: the children must still be stopped in order."""
    with suppress(OSError):
        typer.echo(text)


def _watch(client: Client, job_id: str, as_json: bool) -> None:
    job = watch_job_as_json(client, job_id, typer.echo) if as_json else watch_job(client, job_id, out)
    if not as_json:
        out.print(describe_end(job), markup=False, highlight=False)
    if job["state"] != "succeeded":
        raise typer.Exit(EXIT_JOB_DID_NOT_SUCCEED)


def _find_checkpoint(client: Client, name: str, step: int | None) -> CheckpointObject:
    """The checkpoint itself, or a job's at `step`, or a job's newest."""
    if name.startswith("ftckpt-"):
        return client.get_checkpoint(name)
    steps = []
    for checkpoint in client.all_checkpoints(name):
        if step in (None, checkpoint["step_number"]):
            return checkpoint
        steps.append(str(checkpoint["step_number"]))
    raise ClientError(f"{name} has no such checkpoint. Steps with one: {', '.join(steps) or 'none yet'}.")


def _download_bar() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=err)


if __name__ == "__main__":
    app()
