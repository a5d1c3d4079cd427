"""Two to six runs over one another. Which ones, on which axis and how smooth, is in the URL."""

from __future__ import annotations

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import JobObject
from dashboard import comparison, formats, notices, service
from dashboard.comparison import AXES, FIGURES, RunCurves

_MAX_RUNS = 6
_LIMIT = 500
_ID = "ftjob-"


def page() -> None:
    """Draws the choice, then curves, figures and differences of what is chosen."""
    st.title("Compare")
    named = st.query_params.get_all("runs")
    try:
        jobs = _jobs(named)
    except (ApiUnreachable, ApiError) as error:
        notices.no_answer(error)
        return
    by_label = {formats.run_label(job): job_id for job_id, job in jobs.items()}  # links named runs by them once
    known = [job_id for name in named if (job_id := by_label.get(name, name)) in jobs]
    chosen = st.multiselect(
        "Runs",
        list(jobs),
        default=known[:_MAX_RUNS],
        format_func=lambda job_id: formats.run_label(jobs[job_id]),
        max_selections=_MAX_RUNS,
        key="compared",
    )
    if chosen != named:
        st.query_params["runs"] = chosen
    with st.container(horizontal=True, vertical_alignment="bottom"):
        axis = st.segmented_control("Axis", AXES, default="Step", required=True, key="axis", bind="query-params")
        smoothing = st.slider("Smoothing", 0.0, 0.99, 0.7, step=0.01, key="smoothing", bind="query-params", width=220)
    if len(chosen) < 2:
        st.info(
            "Choose two to six runs. The address of this page then reproduces the view.",
            icon=":material/stacked_line_chart:",
        )
        return
    picked = [jobs[job_id] for job_id in chosen]
    names = [formats.run_label(job) for job in picked]
    try:
        curves = [
            RunCurves(name, service.curves(job, comparison.KEYS)) for name, job in zip(names, picked, strict=True)
        ]
    except (ApiUnreachable, ApiError) as error:
        notices.no_answer(error)
        return
    _charts(curves, axis, smoothing)
    _tables(picked, names)


def _jobs(named: list[str]) -> dict[str, JobObject]:
    """The newest runs by their ids, and every other that the URL names; one that is not there is left out."""
    jobs = {job["id"]: job for job in _newest()}
    for job_id in named:
        if job_id.startswith(_ID) and job_id not in jobs:
            try:
                jobs[job_id] = service.job(job_id)
            except ApiError as error:
                notices.not_found(error.message)
    return jobs


@st.cache_data(ttl=5.0, show_spinner=False)
def _newest() -> list[JobObject]:
    return service.find_jobs(at_most=_LIMIT)[0]


def _charts(curves: list[RunCurves], axis: comparison.Axis, smoothing: float) -> None:
    with st.grid(2, min_column_width=420, gap="small"):
        for figure in FIGURES:
            with st.container(border=True):
                st.markdown(f"**{formats.plain(figure.title)}**")
                option = comparison.overlay(figure, curves, axis, smoothing=smoothing)
                st.echarts_chart(
                    option, height=260, key=f"compare-{figure.key}", alt=f"{figure.title} of the chosen runs"
                )


def _tables(jobs: list[JobObject], names: list[str]) -> None:
    st.subheader("Last figures")
    st.dataframe(
        comparison.final_figures(jobs, names),
        column_config={
            "State": st.column_config.MultiselectColumn(
                options=[look.word for look in formats.STATES.values()],
                color=[look.color for look in formats.STATES.values()],
            ),
            "Validation": st.column_config.NumberColumn(format="%.3f"),
            "Reward": st.column_config.NumberColumn(format="%.3f"),
            "Entropy": st.column_config.NumberColumn(format="%.3f"),
            "Mask (ppm)": st.column_config.NumberColumn(format="%.0f"),
            "Tokens": st.column_config.NumberColumn(format="compact"),
        },
        hide_index=True,
        placeholder="–",
        key="figures",
        alt="Last figures of the chosen runs",
    )
    st.subheader("Settings that differ")
    differing = comparison.differences(jobs, names)
    if not differing:
        st.caption("No differences: the settings are identical.")
        return
    st.dataframe(differing, hide_index=True, key="differences", alt="Settings in which the chosen runs differ")


page()
