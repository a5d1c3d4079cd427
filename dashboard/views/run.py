"""One run: its actions, the live board, and what is on record of it. Run, tab and view are named in the URL.

While the page is open the board holds the run's stream in the browser and draws head and curves itself; this script
runs again only when the state has changed, when a ticket lapses, or when the reader does something.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import CheckpointObject, JobObject
from dashboard import forking, formats, microscope, notices, run_records, service
from dashboard.charts import run_rows
from dashboard.components.live_chart import Head, Source, live_chart

_TABS = ["Events", "Log", "Checkpoints", "Configuration", "Manifest"]
_LISTS_S = 20.0
_RESTING_S = 60.0


def page() -> None:
    """Finds the run and lays the page out."""
    job_id = st.query_params.get("run")
    if not job_id:
        _nothing("No run is chosen.")
        return
    try:
        job, saved = _load(job_id)
    except ApiError as error:
        _nothing(error.message)
        return
    except ApiUnreachable as error:
        notices.no_answer(error)
        st.button("Try again", icon=":material/refresh:")
        return
    _title(job, saved)
    _trouble(job)
    _board(job, saved)
    _records(job)


def _nothing(reason: str) -> None:
    st.title("Run")
    st.info(formats.plain(reason), icon=":material/search_off:")
    st.page_link("views/runs.py", label="All runs", icon=":material/arrow_back:")


def _load(job_id: str) -> tuple[JobObject, list[CheckpointObject]]:
    """The job and its checkpoints; when the service is silent, as they were: the board tells how old they are."""
    key = f"job:{job_id}"
    try:
        job = service.job(job_id)
        st.session_state[key] = job, service.checkpoints(job)
    except ApiUnreachable:
        if key not in st.session_state:
            raise
    found: tuple[JobObject, list[CheckpointObject]] = st.session_state[key]
    return found


# --- title and actions --------------------------------------------------------------------------------------------


def _title(job: JobObject, saved: list[CheckpointObject]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(formats.plain(formats.run_name(job)), width="stretch", anchor=False)
        _actions(job, saved)


def _actions(job: JobObject, saved: list[CheckpointObject]) -> None:
    state = job["state"]
    if state == "paused":
        with st.popover("Resume", icon=":material/play_arrow:", key="resume"):
            at = f" at step {saved[0]['step_number']:,}" if saved else ""
            st.markdown(f"**Resume this run?** It waits for a worker and goes on from its last checkpoint{at}.")
            _act("Resume the run", "resume_job", job["id"])
    else:
        with st.popover("Pause", icon=":material/pause:", key="pause", disabled=state not in formats.CAN_PAUSE):
            st.markdown("**Pause this run?** It saves a checkpoint and gives its worker back; it can be resumed.")
            _act("Pause the run", "pause_job", job["id"])
    with st.popover("Fork", icon=":material/fork_right:", disabled=not saved, key="fork"):
        forking.form(job, saved)
    with st.popover("Cancel", icon=":material/stop:", disabled=state not in formats.CAN_CANCEL, key="cancel"):
        st.markdown("**Cancel this run?** It stops for good. Checkpoints and curves stay.")
        _act("Cancel the run", "cancel_job", job["id"])


def _act(label: str, action: str, job_id: str) -> None:
    st.button(label, type="primary", on_click=_do, args=(action, job_id), key=f"{action}_now")


def _do(action: str, job_id: str) -> None:
    try:
        with service.api() as client:
            getattr(client, action)(job_id)
    except (ApiError, ApiUnreachable) as error:
        st.toast(formats.plain(str(error)), icon=":material/error:")
    service.forget_jobs()


def _trouble(job: JobObject) -> None:
    error = job.get("error")
    if error:
        param = error.get("param")
        where = f" (field {formats.plain(param)})" if param else ""
        st.error(f"{formats.plain(error['message'])}{where}", icon=":material/error:")


# --- the board ----------------------------------------------------------------------------------------------------


def _board(job: JobObject, saved: list[CheckpointObject]) -> None:
    job_id = job["id"]
    try:
        ticket = service.ticket_for(job_id)
        st.session_state[f"ticket:{job_id}"] = ticket
    except (ApiUnreachable, ApiError):
        if f"ticket:{job_id}" not in st.session_state:
            st.info("The curves wait for the API.", icon=":material/cloud_off:")
            return
        ticket = st.session_state[f"ticket:{job_id}"]
    every = int(microscope.train_config(job).get("record_rollouts_every") or 0)
    live_chart(
        Source(
            service.job_url(job_id),
            ticket.text,
            ticket.expires_at,
            active=job["state"] not in formats.ENDED,
            step=int(job["step"] or 0),
            state=f"{job['state']} {job['attempt']}",
            tokens=f"tokens?run={quote(job_id)}" if every else "",
        ),
        Head(
            {name: value for name, value in job.items() if name != "method"},
            formats.looks(),
            sorted(formats.ENDED),
            _where(job),
        ),
        run_rows(formats.algorithm_config(job)),
        checkpoints=sorted(checkpoint["step_number"] for checkpoint in saved),
        on_moved=service.forget_jobs,
        on_lapsed=lambda: service.forget_ticket(job_id),
        key=f"board-{job_id}",
    )


def _where(job: JobObject) -> str:
    """`stapo-demo-base · stapo · on vm:1 · cpu · ftjob-1`."""
    worker, begun = job.get("worker"), job.get("base_checkpoint")
    parts = [
        job["model"],
        f"from {begun}" if begun else "",
        formats.algorithm_of(job),
        f"on {worker}" if worker else "",
        _device(job),
        job["id"],
    ]
    return " · ".join(part for part in parts if part)


def _device(job: JobObject) -> str:
    if not job.get("started_at"):
        return ""
    try:
        return str(service.manifest(job).get("device") or "")
    except (ApiUnreachable, ApiError):
        return ""


# --- records ------------------------------------------------------------------------------------------------------


def _records(job: JobObject) -> None:
    """Which tab is open is in the URL; only that one asks the API for anything."""
    job_id = job["id"]
    pace = _RESTING_S if job["state"] in formats.ENDED else _LISTS_S
    draw: dict[str, Callable[[], None]] = {
        "Events": lambda: st.fragment(run_records.events, run_every=pace)(job_id),
        "Log": lambda: st.fragment(run_records.log, run_every=pace)(job_id),
        "Checkpoints": lambda: st.fragment(run_records.checkpoints, run_every=pace)(job_id),
        "Configuration": lambda: run_records.configuration(job),
        "Manifest": lambda: st.fragment(run_records.manifest, run_every=_RESTING_S)(job_id),  # its links lapse
    }
    for name, tab in zip(_TABS, st.tabs(_TABS, key="tab", bind="query-params"), strict=True):
        if tab.open:
            with tab:
                draw[name]()


page()
