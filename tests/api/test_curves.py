"""Stretches of steps folded to their extremes, against the rows that they stand for."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from api.store import curves, jobs, metrics
from api.store.curves import SPAN, Range
from api.store.database import Session
from api.store.metrics import MetricsFilter
from api.store.thinning import Curve
from tests.api.conftest import Service
from tests.api.writer import Writer

NUM_STEPS = 5 * SPAN + 40
SPIKES = {300: 50.0, 1111: -70.0, NUM_STEPS - 3: 60.0}


def values_of(step: int) -> dict[str, float | None]:
    noise = random.Random(step)
    return {
        "loss": SPIKES.get(step, noise.random()),
        "gap": None if step % 7 else float(step),
        "huge": 1.5e308 if step == 700 else -noise.random(),
    }


@pytest.fixture
def writer(service: Service) -> Writer:
    writer = Writer(service.database, service.create_job()["id"])
    writer.steps(NUM_STEPS, values_of)
    return writer


def survey(service: Service, job_id: str, *, from_step: int = 0, to_step: int = 10**6) -> curves.Survey:
    wanted = Range(job_id, "train", None, from_step, to_step)
    with service.database.transaction() as session:
        return curves.survey(session, curves.measure(session, wanted))


def num_rows(session: Session, job_id: str, *, from_step: int = 0, to_step: int = 10**6) -> int:
    return curves.measure(session, Range(job_id, "train", None, from_step, to_step)).num_rows


def extremes(curve: Curve) -> dict[str, tuple[float, int]]:
    low, high = int(np.argmin(curve.least)), int(np.argmax(curve.greatest))
    return {
        "least": (float(curve.least[low]), int(curve.least_at[low])),
        "greatest": (float(curve.greatest[high]), int(curve.greatest_at[high])),
    }


@pytest.mark.parametrize(("from_step", "to_step"), [(0, 10**6), (257, 1300), (250, 700), (300, 310)])
def test_a_folded_range_has_the_extremes_the_sums_and_the_count_of_its_rows(
    service: Service, writer: Writer, monkeypatch: pytest.MonkeyPatch, from_step: int, to_step: int
) -> None:
    monkeypatch.setattr(curves, "MAX_VALUES", 10**9)
    exact = survey(service, writer.job_id, from_step=from_step, to_step=to_step)
    monkeypatch.setattr(curves, "MAX_VALUES", 0)
    folded = survey(service, writer.job_id, from_step=from_step, to_step=to_step)
    steps = range(max(1, from_step), min(NUM_STEPS, to_step) + 1)
    with service.database.transaction() as session:
        assert num_rows(session, writer.job_id, from_step=from_step, to_step=to_step) == len(steps)
    assert folded.ends == exact.ends
    assert len(folded.curves) == len(exact.curves)
    for one, other in zip(exact.curves, folded.curves, strict=True):
        assert extremes(one) == extremes(other)
        assert one.counts.sum() == other.counts.sum()
        assert one.totals.sum() == pytest.approx(other.totals.sum())
        assert one.squares.sum() == pytest.approx(other.squares.sum())
    if len(steps) > 2 * SPAN:
        assert len(folded.curves[0].counts) < len(steps) / 2


def test_spikes_survive_in_folded_stretches_and_the_room_left_goes_to_even_steps(
    service: Service, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "MAX_VALUES", 0)
    path = f"/v1/fine_tuning/jobs/{writer.job_id}/metrics"
    answer = service.client.get(path, params={"max_points": 200, "keys": "loss"}).json()
    kept = {point["step"]: point["values"]["loss"] for point in answer["data"]}
    assert answer["num_points"] == NUM_STEPS
    assert SPIKES.items() <= kept.items()
    assert {1, NUM_STEPS} <= kept.keys()
    assert 150 <= len(kept) <= 202
    steps = sorted(kept)
    assert max(later - earlier for earlier, later in itertools.pairwise(steps)) <= 12
    seqs = [point["seq"] for point in answer["data"]]
    assert seqs == sorted(set(seqs))


def test_a_new_attempt_takes_back_its_folded_stretches_and_folds_them_again(service: Service, writer: Writer) -> None:
    with service.database.transaction() as session:
        job = jobs.lock_job(session, "ours", writer.job_id)
        metrics.truncate_metrics(session, job, above_step=600)
        assert num_rows(session, writer.job_id) == 600
        assert curves._num_folded(session, writer.job_id, "train") == 2
    writer.steps(NUM_STEPS, lambda step: {"loss": -5.0}, first=601)
    with service.database.transaction() as session:
        assert num_rows(session, writer.job_id) == NUM_STEPS
        assert curves._num_folded(session, writer.job_id, "train") == 5
        job = jobs.get_job(session, "ours", writer.job_id)
        rows = metrics.read_points(session, job, MetricsFilter(), max_points=None).data
    (loss, *_) = [curve for curve in survey(service, writer.job_id).curves if curve.least.min() == -5.0]
    assert len(rows) == NUM_STEPS
    assert extremes(loss)["least"] == (-5.0, rows[600].seq)


def test_the_newest_values_of_several_jobs_are_found_without_reading_their_curves(
    service: Service, writer: Writer
) -> None:
    other = Writer(service.database, service.create_job()["id"])
    other.step(1, loss=3.0)
    idle = service.create_job()["id"]
    with service.database.transaction() as session:
        found = metrics.latest_values(session, [writer.job_id, other.job_id, idle])
    assert found[(other.job_id, "train")]["loss"] == 3.0
    assert found[(writer.job_id, "train")]["loss"] == values_of(NUM_STEPS)["loss"]
    assert {job_id for job_id, _ in found} == {writer.job_id, other.job_id}


def test_a_curve_of_no_finite_value_is_cut_to_nothing() -> None:
    empty = Curve.of(np.array([math.nan, math.nan]), np.array([1, 2]))
    assert len(empty.cut(5).counts) == 0
