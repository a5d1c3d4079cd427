"""Shades and lines of the quadrants by hand, and the page over a step written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import quadrants
from tests.dashboard.conftest import DASHBOARD
from tests.dashboard.runs import Feed
from tests.dashboard.test_tokens import begin

FOUND: dict[str, Any] = {
    "p_decades": [-5.0, 0.0],
    "entropy_decades": [-4.0, 1.0],
    "tau_p": [0.002],
    "tau_h": [0.05, 0.07],
    "positive": {
        "cells": [
            {"p": 0.01, "entropy": 0.1, "count": 100, "grad_norm": 0.5},
            {"p": 0.5, "entropy": 0.2, "count": 1, "grad_norm": 3.0},
        ],
        "quadrants": {"low_p_low_h": 1, "low_p_high_h": 2, "high_p_low_h": 3000, "high_p_high_h": 4},
        "masked": [{"p": 1e-12, "entropy": 0.0}],
    },
}


def test_squares_are_shaded_by_the_logarithm_of_their_count_or_by_their_mean_norm() -> None:
    density = quadrants.chart(FOUND, "positive", "Density")["series"][0]["data"]
    norm = quadrants.chart(FOUND, "positive", "Gradient norm")["series"][0]["data"]

    assert [cell[2] for cell in density] == [2.0, 0.0]
    assert [cell[2] for cell in norm] == [0.5, 3.0]


def test_thresholds_are_lines_and_a_silenced_token_beyond_the_axes_stands_on_their_edge() -> None:
    _, *lines, silenced = quadrants.chart(FOUND, "positive", "Density")["series"]

    assert [line["name"] for line in lines] == ["tau_p", "tau_h", "tau_h"]
    assert lines[0]["data"] == [[0.002, 1e-4], [0.002, 10.0]]
    assert silenced["data"] == [[1e-5, 1e-4]]


def test_a_scale_tells_what_a_shade_stands_for_and_a_square_its_numbers() -> None:
    density, norm = (quadrants.chart(FOUND, "positive", layer) for layer in quadrants.LAYERS)

    assert density["visualMap"]["show"]
    assert density["visualMap"]["text"] == ["100 tokens", "1"]
    assert norm["visualMap"]["text"] == ["gradient norm 3", "0"]
    squares = density["series"][0]
    told = [squares["dimensions"][at] for at in squares["encode"]["tooltip"]]
    assert dict(zip(told, [squares["data"][0][at] for at in squares["encode"]["tooltip"]], strict=True)) == {
        "p": 0.01,
        "entropy": 0.1,
        "tokens": 100,
        "mean gradient norm": 0.5,
    }


def test_the_name_of_tau_h_stands_where_p_is_least() -> None:
    _, _, low, high, _ = quadrants.chart(FOUND, "positive", "Density")["series"]

    assert low["data"][-1] == [1e-5, 0.05]
    assert high["data"][-1] == [1e-5, 0.07]


def test_the_quadrants_are_told_in_words() -> None:
    assert quadrants.quadrant_words(FOUND["positive"]) == (
        "p < tau_p, H < tau_h: 1 · p < tau_p, H ≥ tau_h: 2 · p ≥ tau_p, H < tau_h: 3,000 · p ≥ tau_p, H ≥ tau_h: 4"
    )


@pytest.mark.usefixtures("pages")
def test_the_page_counts_tokens_by_their_sides_of_the_thresholds(feed: Feed) -> None:
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20)
    app.query_params["run"] = begin(feed, "quadrants").id

    app.switch_page(str(Path("views") / "quadrants.py")).run()

    assert not app.exception
    assert len(app.get("echarts_chart")) == 2
    rewarded, punished, _ = (caption.value.replace("\\", "") for caption in app.caption)
    assert "p < tau_p, H < tau_h: 3" in rewarded
    assert "p < tau_p, H ≥ tau_h: 2" in rewarded
    assert "p ≥ tau_p, H < tau_h: 2" in rewarded
    assert "p < tau_p, H < tau_h: 1" in punished
