"""What makes a run is sent under one key until it has been answered: a click after a time-out makes no second run.

Knows the session and no endpoint.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import streamlit as st

from client.objects import JobObject


def once(request: Any, send: Callable[[str], JobObject]) -> JobObject:
    """The run that `send` makes of `request`; it is handed the same Idempotency-Key for the same request until it is
    answered with a run. What it raises, this raises.
    """
    asked, key = st.session_state.get("sending", (None, ""))
    if asked != request:
        key = uuid.uuid4().hex
        st.session_state["sending"] = request, key
    made = send(key)
    del st.session_state["sending"]
    return made
