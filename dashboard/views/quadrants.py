"""Probability against entropy of a recorded step's tokens, split by the sign of the advantage: the paper's figure.

Run, step and layer are named in the URL; the step slider goes through time.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import TokenQuadrants
from dashboard import formats, microscope, notices, quadrants, recordings, step_choice
from dashboard.recordings import Step

JsonObject = dict[str, Any]


def page() -> None:
    """Finds the run and the step, then draws the two planes side by side."""
    try:
        found = step_choice.choose("Quadrants", microscope.full_steps)
        if found is not None:
            _planes(found[1])
    except ApiUnreachable as error:
        notices.no_answer(error)
        st.button("Try again", icon=":material/refresh:")
    except ApiError as error:
        notices.not_found(error.message)


def _planes(step: Step) -> None:
    found = recordings.quadrants(step)
    layer = st.segmented_control(
        "Shade", quadrants.LAYERS, default="Density", required=True, key="layer", bind="query-params"
    )
    left, right = st.columns(2, gap="medium")
    with left:
        _plane("Rewarded tokens, A > 0", found, "positive", layer)
    with right:
        _plane("Punished tokens, A < 0", found, "negative", layer)
    st.caption(
        f"All {found['num_tokens']:,} response tokens of step {step.number:,} whose group had an advantage; ◇ is a "
        "silenced one. "
        "The stronger the colour, the more of them, or the greater their mean gradient norm. "
        "The mask takes what lies below and left of both lines, where A > 0."
    )


def _plane(title: str, found: TokenQuadrants, sign: quadrants.Sign, layer: quadrants.Layer) -> None:
    with st.container(border=True):
        st.markdown(f"**{formats.plain(title)}**")
        option = quadrants.chart(found, sign, layer)
        st.echarts_chart(option, height=430, key=f"plane-{sign}", alt=f"{title}: probability against entropy")
        st.caption(formats.plain(quadrants.quadrant_words(found[sign])))


page()
