"""Whether the parts of the platform are well, as the API itself says."""

from __future__ import annotations

import streamlit as st

from client.http import ApiError, ApiUnreachable
from dashboard import formats, notices, service


@st.fragment(run_every=5.0)
def checks() -> None:
    """One line per part; a part that is not well says why."""
    try:
        with service.api() as client:
            ready = client.ready()
    except (ApiUnreachable, ApiError) as error:
        notices.no_answer(error, since=None)
        return
    for name, verdict in ready.get("checks", {}).items():
        well = verdict == "ok"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(
                "Well" if well else "Not well",
                icon=":material/check_circle:" if well else ":material/error:",
                color="green" if well else "red",
            )
            detail = "" if well else f": {formats.plain(str(verdict))}"
            st.markdown(f"**{formats.plain(name.capitalize())}**{detail}")


st.title("System")
st.caption(f"The API at {service.public_api_url()}")
checks()
