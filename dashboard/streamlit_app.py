"""The dashboard's door: which pages there are. Every page lies in views/ and speaks to the service alone."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import service

st.set_page_config(page_title="STAPO", page_icon=str(Path(__file__).parent / "static" / "icon.svg"), layout="wide")
page = st.navigation(
    [
        st.Page(
            "views/runs.py",
            title="Runs",
            icon=":material/monitoring:",
            default=True,
            help="All runs with their state, progress, reward, entropy and mask rate. Open one to see its live curves.",
        ),
        st.Page(
            "views/run.py",
            title="Run",
            url_path="run",
            visibility="hidden",
            help="One run: live curves, events, checkpoints and its resolved configuration.",
        ),
        st.Page(
            "views/tokens.py",
            title="Tokens",
            icon=":material/biotech:",
            url_path="tokens",
            help="The tokens of a recorded step: which were silenced, why, and what other thresholds would silence.",
        ),
        st.Page(
            "views/quadrants.py",
            title="Quadrants",
            icon=":material/grid_view:",
            url_path="quadrants",
            help="Probability against entropy of the tokens of a recorded step, by the sign of the advantage.",
        ),
        st.Page(
            "views/compare.py",
            title="Compare",
            icon=":material/stacked_line_chart:",
            url_path="compare",
            help="Two to six runs over one another by step, time or tokens; their last figures and differing settings.",
        ),
        st.Page(
            "views/new.py",
            title="New run",
            icon=":material/add_circle:",
            url_path="new",
            help="Choose a model, upload problems, say what is rewarded and how to train; submit, or copy the request.",
        ),
        st.Page(
            "views/playground.py",
            title="Playground",
            icon=":material/forum:",
            url_path="playground",
            help="One prompt, answered by the base model and by checkpoints side by side, with token probabilities.",
        ),
        st.Page(
            "views/system.py",
            title="System",
            icon=":material/dns:",
            url_path="system",
            help="Whether the API, its database, the broker, the storage and the workers are well.",
        ),
    ],
    position="top",
)
try:
    service.connect()
except service.Misconfigured as error:
    st.error(str(error), icon=":material/settings_alert:")
else:
    page.run()
