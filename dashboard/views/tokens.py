"""The microscope: the tokens of a recorded step, which were silenced and why, and what other thresholds would silence.

Run, step, response, token, colour, list, order and thresholds are named in the URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import JobObject, MaskFigures, MaskSimulation, RolloutObject
from dashboard import formats, microscope, notices, recordings, step_choice
from dashboard.components.tokens import response_cards, token_contexts, token_strip
from dashboard.microscope import Thresholds
from dashboard.recordings import Step

_MOST_STEPS = 40
_MOST_TOKENS = 50


def page() -> None:
    """Finds the run and the step, then draws lists on the left, the response on the right, thresholds below."""
    try:
        found = step_choice.choose("Tokens", microscope.recorded_steps)
        if found is not None:
            _inside(*found)
    except ApiUnreachable as error:
        notices.no_answer(error)
        st.button("Try again", icon=":material/refresh:")
    except ApiError as error:
        notices.not_found(error.message)


def _inside(job: JobObject, step: Step) -> None:
    st.session_state.pop("opened", None)
    try:
        own = recordings.simulated(step)
    except ApiError as error:
        if error.status != 404:
            raise
        notices.not_found(f"Step {step.number:,} is not on record. Choose another step.")
        return
    rows = recordings.responses(step)
    _figures(own)
    lists, response = st.columns([5, 8], gap="medium")
    with lists:
        _lists(job, step, rows)
    with response:
        _response(step, rows)
    st.subheader("Other thresholds")
    st.fragment(_thresholds)(job, step)


# --- the run's own mask -------------------------------------------------------------------------------------------


def _figures(own: MaskSimulation) -> None:
    actual, funnel = own["actual"], own["funnel"]
    with st.grid(6, min_column_width=140, gap="small"):
        st.metric("Silenced tokens", f"{actual['num_masked']:,}", border=True)
        st.metric("Of all tokens", f"{formats.number(actual['ppm'])} ppm", border=True)
        st.metric("Response tokens", f"{funnel['tokens']:,}", border=True)
        st.metric("Responses touched", f"{actual['responses_touched']:,}", border=True)
        st.metric(
            "Of the gradient",
            f"{formats.number(100 * actual['grad_share'])} %",
            border=True,
            help="The share of the summed squared gradient norms that the silenced tokens would have carried.",
        )
        st.metric(
            "Threshold", microscope.threshold_words(own).split(" over ")[0].replace("tau_h = ", "H < "), border=True
        )


def _lists(job: JobObject, step: Step, rows: list[RolloutObject]) -> None:
    found = recordings.silenced(step)
    silenced, responses, whole = st.tabs(["Silenced", "Responses", "Whole run"], key="list", bind="query-params")
    with silenced:
        data = {"count": found["num_masked"], "data": found["data"]}
        section = microscope.section("Silenced, most gradient withheld first", data, empty=_NONE_SILENCED)
        repeated = [each for each in found["most_frequent"] if each["count"] > 1][:8]
        token_contexts([section], frequent=repeated, on_open=_open, key="silenced")
    with responses:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            order = st.selectbox("Order", list(microscope.ORDERS), key="order", bind="query-params", width=190)
            st.caption(f"{len(rows):,} responses")
        cards = microscope.response_cards(rows, order)
        response_cards(cards, layout="list", chosen=st.query_params.get("response"), on_open=_open, key="responses")
    if whole.open:
        with whole:
            _most_frequent(job)


def _most_frequent(job: JobObject) -> None:
    """Which tokens the run has silenced most often, each where it would have weighed most."""
    newest = recordings.step_of(job, int(job["step"] or 0))
    by_step = recordings.silenced_in(recordings.silencing_steps(newest, _MOST_STEPS))
    items = microscope.most_frequent(by_step)
    words = f"Most often silenced in the last {len(by_step)} steps that silenced any"
    section = microscope.section(words, {"count": len(items), "data": items[:_MOST_TOKENS]}, empty=_NONE_SILENCED)
    token_contexts([section], frequent=[], on_open=_open, key="whole_run")


_NONE_SILENCED = "No token met all three conditions in this step. Try other thresholds below, or another step."


def _open(what: Mapping[str, Any] | None) -> None:
    if what:
        elsewhere = {"step": str(what["step"])} if what.get("step") else {}
        step_choice.go(response=what["response"], token=str(what["token"]) if "token" in what else None, **elsewhere)
        st.session_state["opened"] = True


# --- one response -------------------------------------------------------------------------------------------------


def _response(step: Step, rows: list[RolloutObject]) -> None:
    """The strip of the chosen response, else of one with a silenced token; its group below."""
    by_id = {row["id"]: row for row in rows}
    named = st.query_params.get("response")
    if named and named not in by_id:
        st.info("That response is not on record in this step; here is another.", icon=":material/search_off:")
    chosen = by_id.get(named or "") or min(rows, key=microscope.ORDERS["silenced"])
    with st.container(horizontal=True, vertical_alignment="center"):
        color = st.segmented_control(
            "Colour",
            list(microscope.COLORS),
            default="Probability",
            required=True,
            key="color",
            bind="query-params",
            label_visibility="collapsed",
        )
        st.caption(
            f"Problem {chosen['prompt_index'] + 1}, answer {chosen['sample_index'] + 1} · "
            f"reward {formats.number(chosen['reward'])} · {chosen['length']:,} tokens"
        )
    detail = recordings.response(step, chosen["id"])
    if not detail["is_complete"]:
        st.caption(
            ":material/info: Between the steps recorded in full, a response without a silenced token keeps the figures "
            "of its rewarded and improbable tokens alone; the pale ones have none."
        )
    token = st.query_params.get("token", "")
    focus = int(token) if token.isdigit() else None
    token_strip(
        microscope.strip(detail),
        color=microscope.COLORS[color],
        focus=focus,
        key="strip",
    )
    group = microscope.siblings(rows, chosen)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**The group: {len(group)} answers to the same problem**", width="content")
        st.page_link(
            "views/playground.py",
            label="Ask again",
            icon=":material/forum:",
            query_params={"run": step.job_id, "prompt": detail["prompt_text"]},
        )
    response_cards(microscope.sibling_cards(group), layout="grid", chosen=chosen["id"], on_open=_open, key="group")


# --- other thresholds ---------------------------------------------------------------------------------------------


def _thresholds(job: JobObject, step: Step) -> None:
    """The sliders and what they would have silenced; at the run's own thresholds that is its own mask."""
    if st.session_state.pop("opened", False):
        st.rerun()  # this part alone was to run, and the response stands in another
    own_tau_p, own_quantile, own_scope = microscope.own_thresholds(job)
    named = microscope.named_thresholds(job, st.query_params)
    knobs, outcome = st.columns([5, 8], gap="medium")
    with knobs, st.container(border=True):
        scope = st.segmented_control(
            "Quantile over",
            list(microscope.SCOPES),
            format_func=lambda name: microscope.SCOPES[name],
            default=named.scope,
            required=True,
            key=f"scope-{job['id']}",
            help="Candidates: tokens with A > 0 and p < tau_p. All tokens: every response token of the mini-batch.",
        )
        usual = microscope.usual_quantile(job, scope)
        tau_p = st.select_slider(
            "tau_p",
            microscope.tau_p_choices(own_tau_p, named.tau_p),
            value=named.tau_p,
            format_func=lambda value: f"{value:g}",
            key=f"tau_p-{job['id']}",
        )
        quantile = st.slider(
            "Quantile of H",
            0.01,
            0.99,
            named.quantile if scope == named.scope else usual,
            step=0.01,
            key=f"quantile-{job['id']}-{scope}",
            format="%.2f",
        )
        st.caption(f"The run's own: tau_p {own_tau_p:g}, quantile {own_quantile:g}, {microscope.SCOPES[own_scope]}.")
    chosen = Thresholds(tau_p, quantile, scope)
    step_choice.go(**microscope.thresholds_query(job, chosen))
    try:
        found = recordings.simulated(
            step,
            tau_p=None if tau_p == own_tau_p else tau_p,
            quantile=None if quantile == usual else quantile,
            scope=None if scope == own_scope else scope,
        )
    except (ApiUnreachable, ApiError) as error:
        notices.no_answer(error)
        return
    with outcome:
        _outcome(found)


def _outcome(found: MaskSimulation) -> None:
    then, now, funnel = found["simulated"], found["actual"], found["funnel"]
    st.markdown(f"This mask **{formats.plain(microscope.comparison_words(found))}**.")
    with st.grid(4, min_column_width=110, gap="small"):
        st.metric("Tokens", f"{funnel['tokens']:,}", border=True)
        st.metric("→ A > 0", f"{funnel['positive_advantage']:,}", border=True)
        st.metric("→ p < tau_p", f"{funnel['low_p']:,}", border=True)
        st.metric("→ silenced", f"{funnel['low_p_low_h']:,}", _change(then, now), "off", border=True)
    gradient = f"{formats.number(100 * then['grad_share'])} % of the squared gradient norm"
    st.caption(
        f"{formats.plain(microscope.threshold_words(found))} · {formats.number(then['ppm'])} ppm · "
        f"responses touched: {then['responses_touched']:,} · {gradient}"
    )
    if found["note"]:
        st.caption(f":material/info: {formats.plain(found['note'])}")
    token_contexts(
        [
            microscope.section("Entering the mask", found["entering"], empty="No further token would be silenced."),
            microscope.section("Leaving the mask", found["leaving"], empty="Every silenced token would stay silenced."),
        ],
        frequent=[],
        on_open=_open,
        key="simulated",
    )


def _change(then: MaskFigures, now: MaskFigures) -> str | None:
    difference = then["num_masked"] - now["num_masked"]
    return f"{difference:+,} against the run" if difference else None


page()
