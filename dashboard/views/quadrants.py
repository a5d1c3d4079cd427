"""Probability against entropy of a recorded step's tokens, split by the sign of the advantage: the paper's figure."""

from __future__ import annotations

from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from dashboard import formats, notices, quadrants, recordings, step_choice
from dashboard.recordings import Step

JsonObject = dict[str, Any]
_MAX_RESPONSES = 96
_MAX_TOKENS = 20_000


def page() -> None:
    """Finds the run and the step, then draws the two planes side by side."""
    try:
        found = step_choice.choose("Quadrants")
        if found is not None:
            _planes(found[1])
    except ApiUnreachable as error:
        notices.no_answer(error, since=None)
        st.button("Try again", icon=":material/refresh:")
    except ApiError as error:
        notices.not_found(error.message)


def _planes(step: Step) -> None:
    rows = recordings.responses(step)
    taken = quadrants.sampled(rows, max_responses=_MAX_RESPONSES, max_tokens=_MAX_TOKENS)
    if not taken:
        notices.not_found("Every group of this step earned one reward throughout, so no token had an advantage.")
        return
    positive, negative = quadrants.split(recordings.whole_responses(step, [row["id"] for row in taken]))
    layer = st.segmented_control(
        "Shade", quadrants.LAYERS, default="Density", required=True, key="layer", bind="query-params"
    )
    left, right = st.columns(2, gap="medium")
    with left:
        _plane("Rewarded tokens, A > 0", positive, layer, step, is_positive=True)
    with right:
        _plane("Punished tokens, A < 0", negative, layer, step, is_positive=False)
    st.caption(
        f"{len(positive) + len(negative):,} tokens of {len(taken):,} of the step's {len(rows):,} responses, all those "
        "with a silenced token (◇) among them. The stronger the colour, the more of them, or the greater the norm. "
        "The mask takes what lies below and left of both lines, where A > 0."
    )


def _plane(title: str, tokens: list[JsonObject], layer: quadrants.Layer, step: Step, *, is_positive: bool) -> None:
    with st.container(border=True):
        st.markdown(f"**{formats.plain(title)}**")
        option = quadrants.chart(tokens, layer, is_positive=is_positive)
        st.echarts_chart(option, height=430, key=f"plane-{is_positive}", alt=f"{title}: probability against entropy")
        counts = quadrants.quadrant_counts(tokens)
        st.caption(" · ".join(f"{formats.plain(name)}: {count:,}" for name, count in sorted(counts.items())))


page()
