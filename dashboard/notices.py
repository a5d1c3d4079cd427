"""What a page says when the service does not answer or refuses: plainly, beside what was last known."""

from __future__ import annotations

import time

import streamlit as st

from client.http import ApiError, ApiUnreachable
from dashboard import formats


def no_answer(error: ApiError | ApiUnreachable, *, since: float | None = None, asks_again: bool = False) -> None:
    """The banner above stale content; `since` is when the service last answered (epoch seconds).

    `asks_again` tells of a part of a page that runs anew by itself.
    """
    if isinstance(error, ApiError):
        st.error(f"The service refused: {formats.plain(error.message)}", icon=":material/block:")
        return
    age = f" What you see is {formats.duration(time.time() - since)} old." if since else ""
    what_next = "This page tries again by itself." if asks_again else "Try again in a moment."
    st.warning(f"The API does not answer.{age} {what_next}", icon=":material/cloud_off:")


def not_found(reason: str) -> None:
    """What stands where something was asked for that is not there."""
    st.info(formats.plain(reason), icon=":material/search_off:")


def refused(error: ApiError | ApiUnreachable) -> None:
    """The refusal with every fault by its place in the request."""
    if isinstance(error, ApiUnreachable) or not error.errors:
        no_answer(error)
        return
    faults = [f"- `{fault.get('pointer', '')}` {formats.plain(fault.get('detail', ''))}" for fault in error.errors]
    st.error("\n".join([formats.plain(error.message), "", *faults]), icon=":material/block:")
