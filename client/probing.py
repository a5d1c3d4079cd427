"""A job file's grader tried on its model's own responses, and what came of it on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.http import Client
from client.objects import GraderProbed
from client.submission import BadJobFile, upload_data

_SHOWN = 60
_MOST_TOKENS = 4096
"""A probe draws no longer responses, however long a job's may be."""


def probe_job_file(client: Client, path: Path, *, num_prompts: int, num_samples: int) -> GraderProbed:
    """Uploads the training file and has a few responses scored. Raises BadJobFile for what the file lacks."""
    body = upload_data(client, path, ["training_file"])
    try:
        asked = probe_of(body)
    except KeyError as error:
        raise BadJobFile(f"{path}: a probe needs {error} of the job; write it into the file.") from error
    except (AttributeError, TypeError) as error:
        raise BadJobFile(f"{path}: `method` is not as a job has it ({error}); see examples/job.yaml.") from error
    return client.probe_grader(asked | {"num_prompts": num_prompts, "num_samples": num_samples})


def probe_of(job: dict[str, Any]) -> dict[str, Any]:
    """The probe of a job's grader: the same model and problems, drawn from as the job would. Raises KeyError."""
    reinforcement = job["method"]["reinforcement"]
    sampling = reinforcement.get("config", {}).get("sampling", {})
    asked = {"temperature": sampling["temperature"]} if "temperature" in sampling else {}
    if "max_response_tokens" in sampling:
        asked["max_tokens"] = min(sampling["max_response_tokens"], _MOST_TOKENS)
    return asked | {"model": job["model"], "training_file": job["training_file"], "grader": reinforcement["grader"]}


def show_probe(found: GraderProbed, console: Console) -> None:
    """The verdict, a line of figures for the grader and each of its parts, and a few responses."""
    color = "green" if found["verdict"] == "usable" else "red"
    console.print(Text(found["verdict"], style=color), Text(found["reason"]))
    table = Table(
        "grader", "mean", "std", "all 0", "all 1", "p50", "p95", "errors", "limits met", box=None, header_style="dim"
    )
    for each in [found["total"], *found["parts"]]:
        spread = ("–" if each[name] is None else f"{each[name]:.3f}" for name in ("mean", "std"))
        shares = (f"{each[name]:.0%}" for name in ("share_all_zero", "share_all_one"))
        times = (f"{each[name] * 1000:.1f} ms" for name in ("latency_p50_s", "latency_p95_s"))
        counts = (Text(_listed(each[name])) for name in ("errors", "notes"))
        table.add_row(Text(each["name"]), *spread, *shares, *times, *counts)
    console.print(table)
    for example in found["examples"]:
        outcome = example["error"] or example["note"] or f"{example['score']:g}"
        console.print(Text(f"  {outcome:>8}  {example['prompt'][:_SHOWN]!r} -> {example['response'][:_SHOWN]!r}"))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items())) or "none"
