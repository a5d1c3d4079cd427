"""The live chart: a board of panels that hold one stream from the API and draw it without a rerun.

Knows how to hand the browser what it needs: the address, a short-lived ticket, the panels. Never the API key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

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
    """Stands in for the API key on this job's GETs, for some minutes."""
    active: bool
    """Whether more points may come; a run that has ended is drawn without a stream."""
    step: int
    """How far the run has come: of a long one the newest steps are asked for first."""
    state: str = ""
    """The run's state and attempt as the page shows them, in one string."""
    tokens: str = ""
    """The page that shows the tokens of a step (`&step=` is added); empty where none are recorded."""


def live_chart(
    source: Source, rows: list[Row], *, checkpoints: list[int], on_moved: Callable[[], None], key: str
) -> None:
    """Mounts the board, or tells the mounted one what is new: the ticket, the steps of checkpoints.

    `on_moved` is called when the stream has told of another state of the run.
    """
    data = {
        "source": {**asdict(source), "keys": keys_of(rows)},
        "rows": [asdict(row) for row in rows],
        "checkpoints": checkpoints,
        "files": sorted(path.name for path in _MODULES.glob("*.js")),
    }
    _renderer()(key=key, data=data, on_state_change=on_moved)


@cache
def _renderer() -> ComponentRenderer:
    return st.components.v2.component(
        "live_chart",
        html='<div class="board" data-stream="loading"></div>',
        css=(_HERE / "live_chart.css").read_text(encoding="utf-8"),
        js=(_HERE / "live_chart.js").read_text(encoding="utf-8"),
    )
