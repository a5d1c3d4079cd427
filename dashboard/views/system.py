"""The platform as it says of itself: services, workers with their slots and leases, the queue, what is kept."""

from __future__ import annotations

import time

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import QueueState, Readiness, Usage, WorkerObject
from dashboard import formats, notices, service, tables

_REFRESH_S = 5.0


@st.fragment(run_every=_REFRESH_S)
def overview() -> None:
    """Everything below the title; when the service is silent, as it last was."""
    try:
        with service.api() as client:
            ready, queue, workers, usage = (
                client.ready(),
                client.get_queue(),
                client.list_workers()["data"],
                client.get_usage(),
            )
    except (ApiUnreachable, ApiError) as error:
        seen = st.session_state.get("system_seen")
        notices.no_answer(error, since=seen[0] if seen else None, asks_again=True)
        if seen is None:
            return
        _, ready, queue, workers, usage = seen
    else:
        st.session_state["system_seen"] = (time.time(), ready, queue, workers, usage)
    _services(ready)
    _figures(queue, usage)
    _workers(workers)
    _queue(queue)
    _models(usage)


def _services(ready: Readiness) -> None:
    """One card per part; one that is not well says why."""
    checks = ready.get("checks", {})
    with st.grid(max(1, len(checks)), min_column_width=150, gap="small"):
        for name, verdict in checks.items():
            well = verdict == "ok"
            with st.container(border=True):
                st.markdown(f"**{formats.plain(name.capitalize())}**")
                st.badge(
                    "OK" if well else "Down",
                    icon=":material/check_circle:" if well else ":material/error:",
                    color="green" if well else "red",
                )
                if not well:
                    st.caption(formats.plain(str(verdict)))


def _figures(queue: QueueState, usage: Usage) -> None:
    with st.grid(6, min_column_width=130, gap="small"):
        st.metric("Workers", f"{queue['workers']:,}", border=True)
        st.metric("Slots in use", f"{queue['running']:,} of {queue['slots']:,}", border=True)
        st.metric("Waiting", f"{queue['waiting']:,}", border=True)
        st.metric("Checkpoints kept", formats.size(usage["stored_checkpoint_bytes"]), border=True)
        st.metric("Files kept", formats.size(usage["stored_file_bytes"]), border=True)
        st.metric("Tokens trained", formats.count(usage["trained_tokens"]), border=True)


def _workers(workers: list[WorkerObject]) -> None:
    st.subheader("Workers")
    if not workers:
        st.info("No worker has given a sign of life today; jobs wait until one does.", icon=":material/dns:")
        return
    now = time.time()
    st.dataframe(
        tables.workers(workers, now=now),
        column_config={
            "Alive": st.column_config.MultiselectColumn(options=["alive", "silent"], color=["green", "red"]),
            "Busy": st.column_config.ProgressColumn(min_value=0.0, max_value=100.0, format="%.0f%%"),
        },
        hide_index=True,
        height="content",
        key="workers",
        alt="Workers with their slots and last sign of life",
    )
    leases = tables.leases(workers, now=now)
    if leases["Run"]:
        st.subheader("Leases")
        st.dataframe(leases, hide_index=True, height="content", key="leases", alt="Which worker holds which run")


def _queue(queue: QueueState) -> None:
    st.subheader("Queue")
    waiting = tables.queue(queue["data"])
    if not waiting["Run"]:
        st.caption("None of your runs is waiting.")
        return
    st.dataframe(waiting, hide_index=True, height="content", key="waiting", alt="Your runs that wait, and for what")


def _models(usage: Usage) -> None:
    if not usage["models"]:
        return
    st.subheader("Used so far")
    st.dataframe(
        tables.usage(usage["models"]),
        column_config={"Tokens": st.column_config.NumberColumn(format="compact")},
        hide_index=True,
        height="content",
        key="usage",
        alt="Runs, steps, tokens and time by base model",
    )


st.title("System")
st.caption(f"The API at {service.public_api_url()}")
overview()
