"""Numbers of a job as a table, and of several jobs side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from api.deps import DatabaseDep, ReaderDep, ViewerDep, admit
from api.lifecycle import JobState
from api.pace import slow
from api.schemas import Comparison, JobSeries, portray_points
from api.store import jobs, metrics
from api.store.database import Database
from api.store.metrics import Kind, MetricsFilter, Point
from api.store.tables import Job

router = APIRouter(prefix="/v1/fine_tuning", tags=["Watch"])
PAGE = 500
"""Rows of a table that are in memory at a time."""
SOME_JOBS = r"^ *[A-Za-z0-9-]+ *(, *[A-Za-z0-9-]+ *){0,19}$"
SOME_KEYS = r"^ *[^, ]+ *(, *[^, ]+ *)*$"
KindDep = Annotated[Kind | None, Query(description="Training steps or evaluations; both when omitted.")]
Keys = Annotated[str | None, Query(description="Metric keys, separated by commas; all when omitted.")]


@router.get(
    "/jobs/{job_id}/metrics.csv",
    summary="Download a job's metrics as a table",
    response_class=StreamingResponse,
    responses={200: {"description": "A table", "content": {"text/csv": {"schema": {"type": "string"}}}}},
)
@slow
def download_job_metrics(
    job_id: str, viewer: ViewerDep, database: DatabaseDep, keys: Keys = None, kind: KindDep = None
) -> StreamingResponse:
    """A row per step and kind, a column per key; an empty field stands for a value that was not finite.

    It is read as it is sent, up to the step that was the last when you asked.
    """
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        columns = _split(keys) or metrics.find_keys(session, job, kind)
    pages = _pages(database, job, MetricsFilter(kind=kind, keys=columns))
    headers = {"Content-Disposition": f'attachment; filename="{job.id}-metrics.csv"'}
    return StreamingResponse(_table(pages, columns), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/metrics/compare", summary="Compare the metrics of several jobs", response_model=Comparison)
@slow
def compare_metrics(
    caller: ReaderDep,
    database: DatabaseDep,
    jobs_named: Annotated[
        str, Query(alias="jobs", pattern=SOME_JOBS, description="Ids of your jobs, separated by commas; up to 20.")
    ],
    keys: Annotated[str, Query(pattern=SOME_KEYS, description="Metric keys, separated by commas; at least one.")],
    kind: KindDep = None,
    max_points: Annotated[int, Query(ge=2, le=10_000, description="Thin each job to about so many.")] = 1000,
) -> Response:
    """The same keys of up to 20 jobs in one answer, thinned so that every spike survives."""
    ids, wanted = list(dict.fromkeys(_split(jobs_named))), _split(keys)
    chosen = MetricsFilter(kind=kind, keys=set(wanted))
    series = []
    with database.transaction() as session:
        for job_id in ids:
            job = jobs.get_job(session, caller.tenant, job_id, param="jobs")
            points = metrics.read_points(session, job, chosen, max_points=max_points)
            head = JobSeries(
                fine_tuning_job_id=job.id,
                name=job.name,
                model=job.model,
                suffix=job.suffix,
                algorithm=job.method["reinforcement"]["config"]["algorithm"]["kind"],
                state=JobState(job.state),
                num_points=points.num_rows,
                data=[],
            )
            series.append(head.model_dump(mode="json") | {"data": portray_points(points)})
    whole = Comparison(keys=wanted, data=[]).model_dump() | {"data": series}
    return Response(orjson.dumps(whole), media_type="application/json")


def _split(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _pages(database: Database, job: Job, wanted: MetricsFilter) -> Iterator[list[Point]]:
    """A transaction each: a slow reader holds no connection, and no more than a page is in memory."""
    seq, is_more = 0, True
    while is_more:
        with database.transaction() as session:
            page = metrics.read_behind(session, job, wanted, seq, limit=PAGE)
        is_more = len(page) == PAGE
        if page:
            seq = page[-1].seq
            yield page


def _table(pages: Iterable[Sequence[Point]], columns: Sequence[str]) -> Iterator[str]:
    piece = io.StringIO(newline="")
    writer = csv.writer(piece)
    writer.writerow(["kind", "step", "time", "attempt", *columns])
    for page in pages:
        for point in page:
            values = orjson.loads(point.values)
            figures = (values.get(key) for key in columns)
            writer.writerow([point.kind, point.step, point.created_at, point.fence, *figures])
        yield piece.getvalue()
        piece.seek(0)
        piece.truncate()
    yield piece.getvalue()
