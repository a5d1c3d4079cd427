"""The live board: the head of a run's page and its panels, which hold one stream from the API and draw it themselves.

Knows how to hand the browser what it needs: the address, a short-lived ticket, the panels. Never the API key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard.charts import Row, keys_of

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

_HERE = Path(__file__).parent
_MODULES = _HERE.parent / "static" / "live_chart"


@dataclass(frozen=True)
class Source:
    """Where a board's points come from, as the browser reaches it."""

    url: str
    """The job's resource, `…/v1/fine_tuning/jobs/<id>`."""
    ticket: str
    """Stands in for the API key on this job's GETs, until `expires_at`."""
    expires_at: float
    """Epoch seconds."""
    active: bool
    """Whether more points may come; a run that has ended is drawn without a stream."""
    step: int
    """How far the run has come: of a long one the newest steps are asked for first."""
    state: str = ""
    """The run's state and attempt as the page shows them, in one string."""
    tokens: str = ""
    """The page that shows the tokens of a step (`&step=` is added); empty where none are recorded."""


@dataclass(frozen=True)
class Head:
    """What stands above the panels before the stream has told anything newer."""

    job: Mapping[str, Any]
    """The job as the wire has it."""
    looks: Mapping[str, Mapping[str, str]]
    """Word, colour and icon of each state."""
    ended: list[str]
    """The states after which nothing comes."""
    where: str
    """What runs, and where."""


def live_chart(
    source: Source,
    head: Head,
    rows: list[Row],
    *,
    checkpoints: list[int],
    on_moved: Callable[[], None],
    on_lapsed: Callable[[], None],
    key: str,
) -> None:
    """Mounts the board, or tells the mounted one what is new: the ticket, how the run stands, the steps of checkpoints.

    `on_moved` is called when the stream has told of another state of the run, `on_lapsed` when the ticket is about to
    lapse or was refused.
    """
    data = {
        "source": {**asdict(source), "keys": keys_of(rows)},
        "run": asdict(head),
        "rows": [asdict(row) for row in rows],
        "checkpoints": checkpoints,
        "files": sorted(path.name for path in _MODULES.glob("*.js")),
    }
    _renderer()(key=key, data=data, on_state_change=on_moved, on_lapsed_change=on_lapsed)


@cache
def _renderer() -> ComponentRenderer:
    return st.components.v2.component(
        "live_chart",
        html='<div class="board" data-stream="loading"></div>',
        css=(_HERE / "live_chart.css").read_text(encoding="utf-8"),
        js=(_HERE / "live_chart.js").read_text(encoding="utf-8"),
    )
