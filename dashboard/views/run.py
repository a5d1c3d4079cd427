"""One run: header, live curves, events, checkpoints, resolved configuration. The run is named in the URL."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from dashboard import formats, notices, service, tables
from dashboard.charts import run_rows
from dashboard.components.live_chart import Source, live_chart

_TABS = ["Events", "Checkpoints", "Configuration"]
_HEADER_S = 3.0
_LISTS_S = 5.0
_CHART_S = 20.0
_RESTING_S = 60.0

JsonObject = dict[str, Any]


def page() -> None:
    """Finds the run and lays the page out; each part below keeps itself up to date."""
    job_id = st.query_params.get("run")
    if not job_id:
        _nothing("No run is chosen.")
        return
    try:
        job = _load(job_id)
    except ApiError as error:
        _nothing(error.message)
        return
    except ApiUnreachable as error:
        notices.no_answer(error, since=None)
        st.button("Try again", icon=":material/refresh:")
        return
    active = job["state"] not in formats.ENDED
    _every(header, _HEADER_S if active else _RESTING_S)(job_id)
    _every(curves, _CHART_S if active else _RESTING_S)(job_id)
    # Which tab is open is in the URL; only that one asks the API for anything.
    events_tab, checkpoints_tab, config_tab = st.tabs(_TABS, key="tab", bind="query-params")
    if events_tab.open:
        with events_tab:
            _every(events, _LISTS_S if active else _RESTING_S)(job_id)
    if checkpoints_tab.open:
        with checkpoints_tab:
            _every(checkpoints, _LISTS_S if active else _RESTING_S)(job_id)
    if config_tab.open:
        with config_tab:
            configuration(job)


def _every(part: Any, seconds: float) -> Any:
    return st.fragment(part, run_every=seconds)


def _nothing(reason: str) -> None:
    st.title("Run")
    st.info(formats.plain(reason), icon=":material/search_off:")
    st.page_link("views/runs.py", label="All runs", icon=":material/arrow_back:")


def _load(job_id: str) -> JsonObject:
    with service.api() as client:
        job = client.get_job(job_id)
    st.session_state[f"job:{job_id}"] = (job, time.time())
    return job


# --- header -------------------------------------------------------------------------------------------------------


def header(job_id: str) -> None:
    """State, progress and actions. When the service is silent, the last answer stays with its age above it."""
    job, seen_at = st.session_state[f"job:{job_id}"]
    was_active = job["state"] not in formats.ENDED
    silence = None
    if time.time() - seen_at > 0.5:
        try:
            job, seen_at = _load(job_id), time.time()
        except (ApiUnreachable, ApiError) as error:
            silence = error
    if was_active and job["state"] in formats.ENDED:
        st.rerun()  # the run has just ended: the whole page turns to its slower pace
    _title(job)
    banner = st.container()
    if silence is not None:
        with banner:
            notices.no_answer(silence, since=seen_at)
    _facts(job, seen_at)
    _trouble(job)


def _title(job: JsonObject) -> None:
    look = formats.state_look(job["state"])
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(formats.plain(formats.run_name(job)), width="content", anchor=False)
        st.badge(look.word, icon=look.icon, color=look.color)
        st.caption(" · ".join(_where(job)), width="stretch")
        _actions(job)
    st.progress(formats.progress(job))


def _where(job: JsonObject) -> list[str]:
    worker = job.get("worker")
    parts = [job["model"], formats.algorithm_of(job), *([f"on {worker}"] if worker else []), job["id"]]
    return [formats.plain(part) for part in parts]


def _actions(job: JsonObject) -> None:
    state = job["state"]
    if state == "paused":
        st.button("Resume", icon=":material/play_arrow:", on_click=_act, args=("resume_job", job["id"]), key="resume")
    else:
        st.button(
            "Pause",
            icon=":material/pause:",
            on_click=_act,
            args=("pause_job", job["id"]),
            key="pause",
            disabled=state not in formats.CAN_PAUSE,
            help="Saves a checkpoint and gives the worker back. Resume goes on from there.",
        )
    with st.popover("Cancel", icon=":material/stop:", disabled=state not in formats.CAN_CANCEL, key="cancel"):
        st.markdown("**Cancel this run?** It stops for good. Checkpoints and curves stay.")
        st.button("Cancel the run", type="primary", on_click=_act, args=("cancel_job", job["id"]), key="cancel_now")


def _act(action: str, job_id: str) -> None:
    try:
        with service.api() as client:
            getattr(client, action)(job_id)
    except (ApiError, ApiUnreachable) as error:
        st.toast(formats.plain(str(error)), icon=":material/error:")
    else:
        st.session_state[f"job:{job_id}"] = (st.session_state[f"job:{job_id}"][0], 0.0)


def _facts(job: JsonObject, seen_at: float) -> None:
    now = time.time()
    latest, evaluation = job.get("latest") or {}, job.get("latest_evaluation") or {}
    ended = job["state"] in formats.ENDED
    taken = (job.get("finished_at") or now) - (job.get("started_at") or job["created_at"])
    with st.grid(8, min_column_width=120, gap="small"):
        _fact("Step", formats.step_text(job))
        _fact("Took" if ended else "Time left", formats.duration(taken if ended else formats.time_left_s(job, now)))
        _fact("Reward", formats.number(latest.get("reward/mean")))
        _fact("Validation", formats.number(evaluation.get("eval/reward_mean")))
        _fact("Entropy", formats.number(latest.get("policy/entropy")))
        _fact("Masked", f"{formats.number(latest.get('mask/ppm'))} ppm" if "mask/ppm" in latest else "–")
        _fact("Attempt", str(job.get("attempt") or "–"))
        _fact("Updated", f"{formats.duration(now - seen_at)} ago" if seen_at else "–")


def _fact(label: str, value: str) -> None:
    st.metric(label, value)


def _trouble(job: JsonObject) -> None:
    queue, error = job.get("queue"), job.get("error")
    if queue:
        st.info(f"Waiting, no. {queue['position']} in the queue. {formats.plain(queue['reason'])}")
    if error:
        where = f" (field {formats.plain(error['param'])})" if error.get("param") else ""
        st.error(f"{formats.plain(error['message'])}{where}", icon=":material/error:")


# --- curves -------------------------------------------------------------------------------------------------------


def curves(job_id: str) -> None:
    """The board of live curves. It reruns now and then to hand the browser a fresh ticket and new checkpoints."""
    job = st.session_state[f"job:{job_id}"][0]
    try:
        ticket = service.ticket_for(job_id)
        with service.api() as client:
            saved = client.list_checkpoints(job_id)["data"]
        st.session_state[f"board:{job_id}"] = (ticket, saved)
    except (ApiUnreachable, ApiError):
        if f"board:{job_id}" not in st.session_state:
            st.info("The curves wait for the API.", icon=":material/cloud_off:")
            return
        ticket, saved = st.session_state[f"board:{job_id}"]
    is_active = job["state"] not in formats.ENDED
    live_chart(
        Source(service.job_url(job_id), ticket.text, active=is_active, step=int(job["step"] or 0)),
        run_rows(formats.algorithm_config(job)),
        checkpoints=sorted(checkpoint["step_number"] for checkpoint in saved),
        key=f"board-{job_id}",
    )


# --- lists --------------------------------------------------------------------------------------------------------


def events(job_id: str) -> None:
    """What has happened, newest first."""
    try:
        with service.api() as client:
            listed = client.list_events(job_id, limit=100)
    except (ApiUnreachable, ApiError):
        listed = st.session_state.get(f"events:{job_id}", {"data": []})
    st.session_state[f"events:{job_id}"] = listed
    st.dataframe(
        tables.events(listed["data"]),
        column_config={
            "Time": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", width=150),
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
            saved = client.list_checkpoints(job_id)["data"]
        ticket = service.ticket_for(job_id)
    except (ApiUnreachable, ApiError):
        st.caption("Checkpoints can be listed when the API answers again.")
        return
    if not saved:
        st.caption("No checkpoint yet. They are written as the run goes on, and once more at its end.")
    for place, checkpoint in enumerate(saved):
        _checkpoint(checkpoint, ticket, is_newest=place == 0)


def _checkpoint(checkpoint: JsonObject, ticket: service.Ticket, *, is_newest: bool) -> None:
    name = checkpoint["id"]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**Step {checkpoint['step_number']:,}**", width="content")
            if checkpoint["final"]:
                st.badge("Final", icon=":material/flag:", color="green")
            age = formats.duration(time.time() - checkpoint["created_at"])
            st.caption(f"{formats.size(checkpoint['bytes'])} · {age} ago · {formats.plain(name)}", width="stretch")
            st.link_button("Download all", service.download_url(name, ticket), icon=":material/download:")
        links = [service.download_url(name, ticket, file["path"]) for file in checkpoint["files"]]
        with st.expander("Files and digests", expanded=is_newest):
            st.table(tables.checkpoint_files(checkpoint, links), border="horizontal", hide_index=True)


def configuration(job: JsonObject) -> None:
    """Every setting as it was resolved when the job was accepted."""
    reinforcement = job.get("method", {}).get("reinforcement", {})
    facts = {"model": job["model"], "training_file": job["training_file"], "validation_file": job["validation_file"]}
    st.json({**facts, "seed": job.get("seed"), "metadata": job.get("metadata"), **reinforcement}, expanded=2)


page()
