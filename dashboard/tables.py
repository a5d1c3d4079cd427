"""Rows of the wire shaped into the tables of the pages, as columns by name. Pure: no Streamlit, no HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dashboard import formats

JsonObject = Mapping[str, Any]
Columns = dict[str, list[Any]]


def runs(jobs: Sequence[JsonObject], curves: dict[str, dict[str, list[float]]], *, now: float) -> Columns:
    """One row per job for the list of runs; `curves` are sparklines by job id and metric key."""
    rows = [_run(job, curves.get(job["id"], {}), now) for job in jobs]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _run(job: JsonObject, curves: dict[str, list[float]], now: float) -> JsonObject:
    latest = job.get("latest") or {}
    return {
        "Run": formats.run_name(job),
        "State": [formats.state_look(job["state"]).word],
        "Model": job["model"],
        "Algorithm": formats.algorithm_of(job),
        "Owner": formats.owner(job),
        "Progress": 100 * formats.progress(job),
        "Step": formats.step_text(job),
        "Time left": _time_left(job, now),
        "Reward": latest.get("reward/mean"),
        "Reward curve": curves.get("reward/mean", []),
        "Entropy": latest.get("policy/entropy"),
        "Entropy curve": curves.get("policy/entropy", []),
        "Mask (ppm)": latest.get("mask/ppm"),
        "Submitted": formats.duration(now - job["created_at"]) + " ago",
    }


def _time_left(job: JsonObject, now: float) -> str:
    queue = job.get("queue")
    if queue:
        return f"no. {queue['position']}"
    return formats.duration(formats.time_left_s(job, now))


def waiting(jobs: Sequence[JsonObject]) -> Columns:
    """The jobs that wait, first things first, with their reasons."""
    return queue([{**job, **job["queue"]} for job in jobs if job.get("queue")])


def queue(places: Sequence[JsonObject]) -> Columns:
    """Places in the queue, first things first, with their reasons."""
    ordered = sorted(places, key=lambda place: place["position"])
    return {
        "No.": [place["position"] for place in ordered],
        "Run": [formats.run_label(place) for place in ordered],
        "Why": [place["reason"] for place in ordered],
        "Priority": [place.get("priority") or 0 for place in ordered],
    }


def workers(rows: Sequence[JsonObject], *, now: float) -> Columns:
    """One row per worker, the living first: how busy it is, when it was heard of last."""
    rows = sorted(rows, key=lambda row: (not row["is_alive"], -row["seen_at"]))
    return {
        "Worker": [row["name"] for row in rows],
        "Alive": [["alive" if row["is_alive"] else "silent"] for row in rows],
        "Busy": [100.0 * len(row["leases"]) / max(1, row["slots"]) for row in rows],
        "Slots": [f"{len(row['leases'])} of {row['slots']}" for row in rows],
        "Last sign of life": [f"{formats.duration(max(0.0, now - row['seen_at']))} ago" for row in rows],
    }


def leases(rows: Sequence[JsonObject], *, now: float) -> Columns:
    """One row per job in a worker's hands; another tenant's has no name."""
    held = [(row["name"], lease) for row in rows for lease in row["leases"]]
    return {
        "Run": [lease["fine_tuning_job_id"] or "another tenant's" for _, lease in held],
        "Worker": [name for name, _ in held],
        "State": [formats.state_look(lease["state"]).word for _, lease in held],
        "Attempt": [lease["attempt"] for _, lease in held],
        "Lease": [_lease_words(lease["lease_until"] - now) for _, lease in held],
    }


def _lease_words(seconds: float) -> str:
    return f"{formats.duration(seconds)} left" if seconds > 0 else f"lapsed {formats.duration(-seconds)} ago"


def usage(models: Sequence[JsonObject]) -> Columns:
    """What was used of each base model."""
    return {
        "Model": [model["model"] for model in models],
        "Runs": [model["num_jobs"] for model in models],
        "Steps": [model["steps"] for model in models],
        "Tokens": [model["trained_tokens"] for model in models],
        "Time": [formats.duration(model["running_s"]) for model in models],
    }


def events(rows: Sequence[JsonObject]) -> Columns:
    """A job's events, as the wire orders them."""
    return {
        "Time (UTC)": [datetime.fromtimestamp(row["created_at"], UTC) for row in rows],
        "Level": [[row["level"]] for row in rows],
        "Message": [row["message"] for row in rows],
    }


def checkpoint_files(checkpoint: JsonObject, links: list[str]) -> str:
    """The files of one checkpoint as a table in Markdown: the name links to the bytes, the digest is set as code."""
    rows = [
        f"| [{formats.plain(file['path'])}]({link}) | {formats.size(file['bytes'])} | `{file['sha256']}` |"
        for file, link in zip(checkpoint["files"], links, strict=True)
    ]
    return "\n".join(["| File | Size | SHA-256 |", "|---|---:|---|", *rows])
