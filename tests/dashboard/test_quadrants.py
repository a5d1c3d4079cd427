"""Cells, counts and lines of the quadrants by hand, and the page over a step written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import quadrants
from tests.dashboard.conftest import DASHBOARD
from tests.dashboard.runs import Feed
from tests.dashboard.test_tokens import begin


def row(number: int, *, length: int = 10, advantage: float = 1.0, num_masked: int = 0) -> dict[str, float]:
    return {"place": number, "length": length, "advantage": advantage, "num_masked": num_masked}


def test_responses_with_a_silenced_token_come_first_and_the_rest_evenly() -> None:
    rows = [row(n, num_masked=int(n == 7), advantage=0.0 if n == 4 else 1.0) for n in range(9)]

    assert [each["place"] for each in quadrants.sampled(rows, max_responses=4, max_tokens=1000)] == [7, 0, 2, 5]
    assert len(quadrants.sampled(rows, max_responses=9, max_tokens=35)) == 3


def test_a_cell_holds_the_tokens_of_its_square_and_their_mean_norm() -> None:
    tokens: list[dict[str, Any]] = [
        {"p": 0.011, "entropy": 0.101, "grad_norm": 1.0},
        {"p": 0.0112, "entropy": 0.102, "grad_norm": 2.0},
        {"p": 1e-12, "entropy": 0.0, "grad_norm": None},  # beyond both axes: the outermost square
    ]

    outer, [inner] = quadrants.cells(tokens)[:1], quadrants.cells(tokens)[1:]

    assert (inner.count, inner.grad_norm) == (2, 1.5)
    assert 0.01 < inner.p < 0.0130  # a ninth of a decade wide
    assert outer[0].p < 2e-5
    assert outer[0].entropy < 2e-4


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
