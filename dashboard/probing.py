"""A grader tried on the model's own responses, from the form of a new run: a button, figures, a few responses."""

from __future__ import annotations

from typing import Any

import streamlit as st

from client.probing import probe_of
from dashboard import formats, service

JsonObject = dict[str, Any]

_VERDICTS: dict[str, tuple[str, formats.Color, str]] = {
    "usable": ("Tells responses apart", "green", ":material/check_circle:"),
    "one_score": ("Gives one score", "red", ":material/error:"),
    "errors": ("Often cannot judge", "red", ":material/error:"),
}


def button(*, is_ready: bool) -> bool:
    """Whether a probe was asked for just now."""
    return st.button(
        "Probe",
        icon=":material/labs:",
        disabled=not is_ready,
        key="probe",
        help="Draws a few responses of the model and scores them. Nothing is queued; the first one loads the model.",
    )


def ask(body: JsonObject) -> None:
    """Probes the grader of a request and remembers the answer. Raises ApiError and ApiUnreachable."""
    with st.spinner("Drawing responses and scoring them…"), service.api() as client:
        st.session_state["probed"] = (body, client.probe_grader(probe_of(body)))


def show(body: JsonObject) -> None:
    """What the last probe found, while the request is still the one that was probed."""
    asked, found = st.session_state.get("probed", (None, None))
    if found is None or asked != body:
        return
    verdict, color, icon = _VERDICTS[found["verdict"]]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(verdict, icon=icon, color=color)
            st.caption(formats.plain(found["reason"]), width="stretch")
        st.dataframe(figures(found), hide_index=True, key="probe-figures", alt="Figures of the grader and its parts")
        st.dataframe(responses(found), hide_index=True, key="probe-responses", alt="Some responses and their scores")


def figures(found: JsonObject) -> dict[str, list[str]]:
    """A row for the grader and one for each of its parts."""
    rows = [found["total"], *found["parts"]]
    return {
        "Grader": [formats.visible(row["name"]) for row in rows],
        "Mean": [_number(row["mean"]) for row in rows],
        "Spread": [_number(row["std"]) for row in rows],
        "Groups of all 0": [f"{row['share_all_zero']:.0%}" for row in rows],
        "Groups of all 1": [f"{row['share_all_one']:.0%}" for row in rows],
        "Latency p50": [f"{row['latency_p50_s'] * 1000:.1f} ms" for row in rows],
        "Latency p95": [f"{row['latency_p95_s'] * 1000:.1f} ms" for row in rows],
        "Errors": [_listed(row["errors"]) for row in rows],
        "Limits met": [_listed(row["notes"]) for row in rows],
    }


def responses(found: JsonObject) -> dict[str, list[str]]:
    """The examples: what was asked, what was said, and what it got."""
    examples = found["examples"]
    return {
        "Prompt": [formats.visible(each["prompt"]) for each in examples],
        "Response": [formats.visible(each["response"]) for each in examples],
        "Score": [_outcome(each) for each in examples],
    }


def _outcome(example: JsonObject) -> str:
    score = f"{example['score']:g}" + (f" ({example['note']})" if example["note"] else "")
    return formats.visible(example["error"] or score)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items())) or "none"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
