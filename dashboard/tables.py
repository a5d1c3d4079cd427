"""Rows of the wire shaped into the tables of the pages, as columns by name. Pure: no Streamlit, no HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dashboard import formats

JsonObject = dict[str, Any]
Columns = dict[str, list[Any]]


def runs(jobs: list[JsonObject], curves: dict[str, dict[str, list[float]]], *, now: float) -> Columns:
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


def events(rows: list[JsonObject]) -> Columns:
    """A job's events, as the wire orders them."""
    return {
        "Time": [datetime.fromtimestamp(row["created_at"], UTC) for row in rows],
        "Level": [[row["level"]] for row in rows],
        "Message": [row["message"] for row in rows],
    }


def checkpoint_files(checkpoint: JsonObject, links: list[str]) -> Columns:
    """The files of one checkpoint in Markdown: the name links to the bytes, the digest is set as code."""
    files = checkpoint["files"]
    return {
        "File": [f"[{formats.plain(file['path'])}]({link})" for file, link in zip(files, links, strict=True)],
        "Size": [formats.size(file["bytes"]) for file in files],
        "SHA-256": [f"`{file['sha256']}`" for file in files],
    }
