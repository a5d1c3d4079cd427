"""The list of runs: what each is doing now, newest first. Loads a page of jobs, shapes it, draws it."""

from __future__ import annotations

import time

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import JobObject
from dashboard import formats, notices, service, tables

_REFRESH_S = 5.0
_MOST_COMPARED = 6
_SHOWN = 50
_SEARCHED = 500
_STATUSES = ["running", "queued", "paused", "succeeded", "failed", "cancelled"]


def page() -> None:
    """Draws title and filter once; the table keeps itself up to date below."""
    st.title("Runs")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.pills(
            "Status",
            _STATUSES,
            format_func=lambda status: formats.state_look(status).word,
            key="status",
            bind="query-params",
            label_visibility="collapsed",
        )
        st.text_input(
            "Search",
            type="search",
            placeholder="Name, model or id",
            key="search",
            bind="query-params",
            label_visibility="collapsed",
            width=260,
        )
    listing()


@st.fragment(run_every=_REFRESH_S)
def listing() -> None:
    """The table, or what is there instead of one."""
    opened = st.session_state.pop("opened_run", None)
    if opened:
        st.switch_page("views/run.py", query_params={"run": opened})
    status, search = st.session_state.get("status"), st.session_state.get("search") or ""
    try:
        jobs, has_more = service.find_jobs(status=status, at_most=_SEARCHED if search else _SHOWN)
        found = [job for job in jobs if formats.matches(job, search)]
        curves = service.sparklines(found[:_SHOWN])
    except (ApiUnreachable, ApiError) as error:
        notices.no_answer(error, since=st.session_state.get("runs_seen_at"), asks_again=True)
        found, has_more, curves = st.session_state.get("runs_seen", ([], False, {}))
        if not found:
            return
    else:
        st.session_state["runs_seen"], st.session_state["runs_seen_at"] = (found, has_more, curves), time.time()
    if not found:
        _empty(status, search)
        return
    shown = found[:_SHOWN]
    _summary(shown, len(found))
    _table(shown, curves)
    _queue(shown)
    if has_more:
        newest = f"the newest {_SEARCHED:,} were searched" if search else f"the newest {_SHOWN} are shown"
        st.caption(f"There are more runs: {newest}. Narrow them down with filter and search.")


def _summary(shown: list[JobObject], num_found: int) -> None:
    active = [job for job in shown if job["state"] not in formats.ENDED]
    waiting = sum(job["state"] == "queued" for job in active)
    picked = [job for job in shown if job["id"] in st.session_state.get("picked", [])]
    of_all = f" of {num_found:,}" if num_found > len(shown) else ""
    # The button stands on the left: the table's own toolbar comes up over its right end.
    with st.container(horizontal=True, vertical_alignment="center"):
        is_wanted = st.button(
            f"Compare {len(picked)}" if picked else "Compare",
            icon=":material/stacked_line_chart:",
            disabled=not 2 <= len(picked) <= _MOST_COMPARED,
            key="compare",
        )
        st.caption(
            f"{len(shown)}{of_all} shown · {len(active) - waiting} at work · {waiting} waiting · "
            "open one by its name, tick two to six to compare them"
        )
    if is_wanted:
        st.switch_page("views/compare.py", query_params={"runs": [job["id"] for job in picked]})


def _pick(key: str, job_ids: list[str]) -> None:
    """Keeps what was ticked by id: rows move when runs are added."""
    st.session_state["picked"] = [job_ids[row] for row in st.session_state[key]["selection"]["rows"]]


def _open(key: str, job_ids: list[str]) -> None:
    """Takes the click for the run that stood in its row when the reader saw it."""
    st.session_state["opened_run"] = job_ids[st.session_state[key]["row"]]


def _table(jobs: list[JobObject], curves: dict[str, dict[str, list[float]]]) -> None:
    """The rows are named by number alone: a table of other runs is another table, whose ticks are set anew."""
    job_ids = [job["id"] for job in jobs]
    picked = st.session_state.get("picked", [])
    key = f"runs-{hash(tuple(job_ids))}"
    st.dataframe(
        tables.runs(jobs, curves, now=time.time()),
        column_config={
            "Run": st.column_config.ButtonColumn(
                "Run",
                type="tertiary",
                alignment="left",
                pinned=True,
                key=f"open-{key}",
                on_click=_open,
                args=(f"open-{key}", job_ids),
                width=110,
            ),
            "State": st.column_config.MultiselectColumn(
                "State",
                options=[look.word for look in formats.STATES.values()],
                color=[look.color for look in formats.STATES.values()],
                width=98,
            ),
            "Model": st.column_config.TextColumn(width=92),
            "Owner": st.column_config.TextColumn(width=62),
            "Algorithm": st.column_config.TextColumn(width=70),
            "Progress": st.column_config.ProgressColumn(
                "Progress", min_value=0.0, max_value=100.0, format="%.0f%%", width=68
            ),
            "Step": st.column_config.TextColumn(width=74, alignment="right"),
            "Time left": st.column_config.TextColumn(width=66, alignment="right"),
            "Reward": st.column_config.NumberColumn(format="%.3f", width=62),
            "Reward curve": st.column_config.LineChartColumn(width=88),
            "Entropy": st.column_config.NumberColumn(format="%.3f", width=62),
            "Entropy curve": st.column_config.LineChartColumn(width=90),
            "Mask (ppm)": st.column_config.NumberColumn(
                "Mask ppm", format="%.0f", width=76, help="Silenced tokens per million, last step"
            ),
            "Submitted": st.column_config.TextColumn(width=84, alignment="right"),
        },
        hide_index=True,
        key=key,
        on_select=lambda: _pick(key, job_ids),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [row for row, job_id in enumerate(job_ids) if job_id in picked]}},
        height="content",
        row_height=38,
        placeholder="–",
        alt="Runs with state, progress, reward, entropy and mask rate",
    )


def _queue(jobs: list[JobObject]) -> None:
    """Who waits, and for what."""
    waiting = tables.waiting(jobs)
    if not waiting["Run"]:
        return
    st.markdown("**Waiting**")
    st.dataframe(waiting, hide_index=True, key="queue", height="content", alt="Runs that wait, and for what")


def _empty(status: str | None, search: str | None) -> None:
    if status or search:
        st.info("No run matches the filter.", icon=":material/filter_alt_off:")
        return
    st.info("No run yet. Submit one, and its curves appear here by themselves:", icon=":material/rocket_launch:")
    st.code("stapo submit job.yaml      # or POST /v1/fine_tuning/jobs", language="shell")


page()
