"""One run: header with its actions, live curves, and what is on record of it. Run and tab are named in the URL."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import streamlit as st

from client.http import ApiError, ApiUnreachable
from dashboard import forking, formats, microscope, notices, run_records, service
from dashboard.charts import run_rows
from dashboard.components.live_chart import Source, live_chart

_TABS = ["Events", "Log", "Checkpoints", "Configuration", "Manifest"]
_HEADER_S = 3.0
_LISTS_S = 20.0
_CHART_S = 30.0
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
    pace = _LISTS_S if active else _RESTING_S
    draw: dict[str, Callable[[], None]] = {
        "Events": lambda: _every(run_records.events, pace)(job_id),
        "Log": lambda: _every(run_records.log, pace)(job_id),
        "Checkpoints": lambda: _every(run_records.checkpoints, pace)(job_id),
        "Configuration": lambda: run_records.configuration(job),
        "Manifest": lambda: run_records.manifest(job_id),
    }
    for name, tab in zip(_TABS, st.tabs(_TABS, key="tab", bind="query-params"), strict=True):
        if tab.open:
            with tab:
                draw[name]()


def _every(part: Any, seconds: float) -> Any:
    return st.fragment(part, run_every=seconds)


def _nothing(reason: str) -> None:
    st.title("Run")
    st.info(formats.plain(reason), icon=":material/search_off:")
    st.page_link("views/runs.py", label="All runs", icon=":material/arrow_back:")


def _load(job_id: str) -> JsonObject:
    job = service.job(job_id)
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
    saved = service.checkpoints(job)
    with st.popover("Fork", icon=":material/fork_right:", disabled=not saved, key="fork"):
        forking.form(job, saved)
    with st.popover("Cancel", icon=":material/stop:", disabled=state not in formats.CAN_CANCEL, key="cancel"):
        st.markdown("**Cancel this run?** It stops for good. Checkpoints and curves stay.")
        st.button("Cancel the run", type="primary", on_click=_act, args=("cancel_job", job["id"]), key="cancel_now")


def _act(action: str, job_id: str) -> None:
    try:
        with service.api() as client:
            getattr(client, action)(job_id)
        service.forget_jobs()
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
        saved = service.checkpoints(job)
        st.session_state[f"board:{job_id}"] = (ticket, saved)
    except (ApiUnreachable, ApiError):
        if f"board:{job_id}" not in st.session_state:
            st.info("The curves wait for the API.", icon=":material/cloud_off:")
            return
        ticket, saved = st.session_state[f"board:{job_id}"]
    is_active = job["state"] not in formats.ENDED
    every = int(microscope.train_config(job).get("record_rollouts_every") or 0)
    live_chart(
        Source(
            service.job_url(job_id),
            ticket.text,
            active=is_active,
            step=int(job["step"] or 0),
            state=f"{job['state']} {job['attempt']}",
            tokens=f"tokens?run={quote(job_id)}" if every else "",
        ),
        run_rows(formats.algorithm_config(job)),
        checkpoints=sorted(checkpoint["step_number"] for checkpoint in saved),
        on_moved=_moved,
        key=f"board-{job_id}",
    )
    if st.session_state.pop("moved", False):
        # The stream has told of another state: the whole page shows it. Only now, since a run of this part that ends
        # before the board is drawn takes the board, its points and the reader's zoom off the page.
        st.rerun()


def _moved() -> None:
    service.forget_jobs()
    st.session_state["moved"] = True


page()
