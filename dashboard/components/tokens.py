"""Tokens on the page: a response as a strip, responses as cards, tokens in context. Thin faces over static/tokens/.

Model text goes to the browser as data and into the page as text alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

JsonObject = Mapping[str, Any]
OnOpen = Callable[[JsonObject], None]
"""Called with what the reader opened: `response`, and `token` (a position) where it was one."""

_HERE = Path(__file__).parent
_STATIC = _HERE.parent / "static"
_BORROWED = ("live_chart/canvas.js", "live_chart/scale.js", "live_chart/theme.js")


def token_strip(strip: JsonObject, *, color: str, focus: int | None, key: str) -> None:
    """A response token by token, coloured by one measure; the panel below shows the token at `focus` first."""
    _renderer()(key=key, data=_data("strip", {**strip, "color": color, "focus": focus}))


def response_cards(cards: Sequence[JsonObject], *, layout: str, chosen: str | None, on_open: OnOpen, key: str) -> None:
    """Responses side by side (`grid`) or below one another (`list`)."""
    data = _data("cards", {"layout": layout, "chosen": chosen, "cards": cards})
    _renderer()(key=key, data=data, on_open_change=lambda: on_open(st.session_state[key]["open"]))


def token_contexts(
    sections: Sequence[JsonObject], *, frequent: Sequence[JsonObject], on_open: OnOpen, key: str
) -> None:
    """Lists of tokens with the text around them."""
    data = _data("contexts", {"sections": sections, "frequent": frequent})
    _renderer()(key=key, data=data, on_open_change=lambda: on_open(st.session_state[key]["open"]))


def sampled_answer(answer: JsonObject, *, key: str) -> None:
    """An answer that was drawn from a model: its text, or its tokens with their probabilities."""
    _renderer()(key=key, data=_data("sampled", answer))


def _data(view: str, data: JsonObject) -> JsonObject:
    own = [f"tokens/{path.name}" for path in sorted((_STATIC / "tokens").glob("*.js"))]
    return {"view": view, "files": [*own, *_BORROWED], **data}


@cache
def _renderer() -> ComponentRenderer:
    return st.components.v2.component(
        "tokens",
        html='<div class="view"></div>',
        css=(_HERE / "tokens.css").read_text(encoding="utf-8"),
        js=(_HERE / "tokens.js").read_text(encoding="utf-8"),
    )
