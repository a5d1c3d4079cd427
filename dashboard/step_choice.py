"""Which run and which of its recorded steps a page looks into: chosen at its top, named in the URL."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from client.objects import JobObject
from dashboard import formats, microscope, recordings, service
from dashboard.recordings import Step

_LIMIT = 100
StepsOf = Callable[[JobObject], range]
"""The steps of a job that a page can show."""


def choose(title: str, steps_of: StepsOf) -> tuple[JobObject, Step] | None:
    """Draws the title with the choice; None, and said why, where there is nothing to look into.

    Raises ApiError and ApiUnreachable.
    """
    jobs = _jobs()
    job = _chosen(jobs, steps_of)
    if job is None:
        st.title(title)
        st.info("No run yet. Once one records its responses, every token can be looked at here.")
        return None
    steps = steps_of(job)
    step = _step(title, job, jobs, steps)
    if step is None:
        _nothing_recorded(job, steps.start)
        return None
    return job, step


def _jobs() -> dict[str, JobObject]:
    """The newest runs by their ids, and the one that the URL names."""
    named = st.query_params.get("run")
    with service.api() as client:
        jobs = {job["id"]: job for job in client.list_jobs(limit=_LIMIT)["data"]}
        if named and named not in jobs:
            jobs[named] = client.get_job(named)
    return jobs


def _chosen(jobs: dict[str, JobObject], steps_of: StepsOf) -> JobObject | None:
    """The run of the URL, else the newest that has recorded something; None while there is none at all."""
    recorded = [job_id for job_id, job in jobs.items() if steps_of(job)]
    return jobs.get(st.query_params.get("run") or next(iter([*recorded, *jobs]), ""))


def _step(title: str, job: JobObject, jobs: dict[str, JobObject], steps: range) -> Step | None:
    """The title with the choice of run and step: the step nearest to the URL's, else the last one recorded in full."""
    wanted = st.query_params.get("step", "")
    usual = next(reversed(microscope.full_steps(job) or steps), None)
    step = microscope.nearest(steps, int(wanted)) if steps and wanted.isdigit() else usual
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.title(title, width="content", anchor=False)
        _choice_of_run(job, jobs)
        st.page_link("views/run.py", label="Its curves", icon=":material/monitoring:", query_params={"run": job["id"]})
        st.space("stretch")
        if step is not None and len(steps) > 1:
            key = f"step-{job['id']}"
            st.session_state[key] = step
            st.slider(
                "Step",
                steps[0],
                steps[-1],
                step=steps.step,
                key=key,
                on_change=_choose_step,
                args=(job, key),
                width=420,
            )
    return None if step is None else recordings.step_of(job, step)


def _choice_of_run(job: JobObject, jobs: dict[str, JobObject]) -> None:
    key = f"run-{job['id']}"
    st.selectbox(
        "Run",
        list(jobs),
        index=list(jobs).index(job["id"]),
        format_func=lambda job_id: formats.run_label(jobs[job_id]),
        key=key,
        on_change=lambda: go(run=st.session_state[key], step=None, response=None, token=None),
        label_visibility="collapsed",
        width=240,
    )


def _choose_step(job: JobObject, key: str) -> None:
    go(run=job["id"], step=str(st.session_state[key]), response=None, token=None)


def go(**query: str | None) -> None:
    """Changes what the URL names; the page is drawn anew for it."""
    for name, value in query.items():
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != value:
            st.query_params[name] = value


def _nothing_recorded(job: JobObject, first: int) -> None:
    """Why there is nothing to look into; `first` is the first step that the page could show."""
    if not microscope.train_config(job).get("record_rollouts_every"):
        st.info("This run records no responses: its `record_rollouts_every` is 0.", icon=":material/visibility_off:")
    elif job["state"] in formats.ENDED:
        st.info(f"This run ended before step {first:,}, the first that this page could show.")
    else:
        st.info(
            f"The first step that this page can show will be step {first:,}; "
            f"the run is at step {int(job.get('step') or 0):,}.",
            icon=":material/hourglass_empty:",
        )
        st.button("Look again", icon=":material/refresh:")
