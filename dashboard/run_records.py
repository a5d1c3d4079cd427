"""What is on record of a run, each in a tab of its page: events, the trainer's log, checkpoints, settings, manifest."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import CheckpointObject, JobObject
from dashboard import formats, service, tables

_LOG_BYTES = 64 * 1024
_LOG_HEIGHT = 440
_SHOWN = 50


def events(job_id: str) -> None:
    """What has happened, newest first."""
    key = f"events:{job_id}"
    try:
        with service.api() as client:
            st.session_state[key] = client.list_events(job_id, limit=100)
    except (ApiUnreachable, ApiError):
        if key not in st.session_state:
            st.caption("Events can be listed when the API answers again.")
            return
    st.dataframe(
        tables.events(st.session_state[key]["data"]),
        column_config={
            "Time (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", width=150),
            "Level": st.column_config.MultiselectColumn(
                options=["info", "warn", "error"], color=["gray", "orange", "red"], width=70
            ),
            "Message": st.column_config.TextColumn(width="large"),
        },
        hide_index=True,
        height=360,
        key="events",
        alt="Events of this run, newest first",
    )


def checkpoints(job_id: str) -> None:
    """Whole checkpoints with the digest of every file; the browser downloads from the API itself."""
    try:
        with service.api() as client:
            saved = list(client.all_checkpoints(job_id))
        ticket = service.ticket_for(job_id)
    except (ApiUnreachable, ApiError):
        st.caption("Checkpoints can be listed when the API answers again.")
        return
    if not saved:
        st.caption("No checkpoint yet. They are written as the run goes on, and once more at its end.")
    best = best_checkpoint(saved)
    if len(saved) > _SHOWN:
        st.caption(f"The newest {_SHOWN} of {len(saved):,}, and the best.")
    for place, checkpoint in enumerate(saved):
        if place >= _SHOWN and checkpoint["id"] != best:
            continue
        _checkpoint(checkpoint, ticket, is_newest=place == 0, is_best=checkpoint["id"] == best)


def best_checkpoint(saved: Sequence[Mapping[str, Any]]) -> str | None:
    """The id of the checkpoint with the highest validation reward, the earliest of equals; None where none has one."""
    scored = [
        (checkpoint["metrics"]["eval/reward_mean"], -checkpoint["step_number"], checkpoint["id"])
        for checkpoint in saved
        if checkpoint["metrics"].get("eval/reward_mean") is not None
    ]
    return str(max(scored)[2]) if scored else None


def _checkpoint(checkpoint: CheckpointObject, ticket: service.Ticket, *, is_newest: bool, is_best: bool) -> None:
    name = checkpoint["id"]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**Step {checkpoint['step_number']:,}**", width="content")
            if checkpoint["final"]:
                st.badge("Final", icon=":material/flag:", color="green")
            if is_best:
                st.badge("Best", icon=":material/star:", color="blue", help="The highest validation reward so far.")
            age = formats.duration(time.time() - checkpoint["created_at"])
            scores = checkpoint["metrics"]
            told = [
                f"{word} {formats.number(scores[key])}"
                for word, key in (("reward", "reward/mean"), ("validation", "eval/reward_mean"))
                if scores.get(key) is not None
            ]
            words = [*told, formats.size(checkpoint["bytes"]), f"{age} ago", name]
            st.caption(formats.plain(" · ".join(words)), width="stretch")
            st.link_button("Download all", service.download_url(name, ticket), icon=":material/download:")
        links = [service.download_url(name, ticket, file["path"]) for file in checkpoint["files"]]
        with st.expander("Files and digests", expanded=is_newest):
            st.markdown(tables.checkpoint_files(checkpoint, links))


def configuration(job: JobObject) -> None:
    """Every setting as it was resolved when the job was accepted."""
    reinforcement = job.get("method", {}).get("reinforcement", {})
    facts = {"model": job["model"], "training_file": job["training_file"], "validation_file": job["validation_file"]}
    st.json({**facts, "seed": job.get("seed"), "metadata": job.get("metadata"), **reinforcement}, expanded=2)


def log(job_id: str) -> None:
    """The end of what the trainer printed, the newest line in sight."""
    key = f"log:{job_id}"
    try:
        with service.api() as client:
            st.session_state[key] = client.read_log(job_id, offset=-_LOG_BYTES)
    except (ApiUnreachable, ApiError):
        st.caption("The log goes on when the API answers again.")
    part = st.session_state.get(key)
    if part is None:
        return
    if not part["text"]:
        st.caption("The trainer has printed nothing yet.")
        return
    skipped = f", the last {formats.size(_LOG_BYTES)} of them" if part["offset"] else ""
    st.caption(f"{formats.size(part['num_bytes'])}{skipped} · all attempts, one after another")
    with st.container(height=_LOG_HEIGHT, border=True, autoscroll=True, key="log"):
        st.text(formats.visible(part["text"]))


def manifest(job_id: str) -> None:
    """All that is needed to do the run again, and the numbers of the run as a table."""
    try:
        with service.api() as client:
            found = client.get_manifest(job_id)
        ticket = service.ticket_for(job_id)
    except (ApiUnreachable, ApiError):
        st.caption("The manifest can be read when the API answers again.")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Config, seed, digests of data and checkpoints, library versions, device.", width="stretch")
        st.download_button(
            "manifest.json",
            json.dumps(found, indent=2, ensure_ascii=False),
            file_name=f"{job_id}-manifest.json",
            mime="application/json",
            icon=":material/download:",
            on_click="ignore",
        )
        st.link_button("metrics.csv", service.metrics_table_url(job_id, ticket), icon=":material/download:")
    st.json(found, expanded=1)
